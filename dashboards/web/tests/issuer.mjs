// An OpenID Connect issuer in a few lines: discovery, a page that asks whether to let somebody in, tokens for codes with
// PKCE checked, tokens that renew and are good for once, and faults on demand. It signs with ES256.

import { createHash, createPublicKey, generateKeyPairSync, randomBytes, sign, verify } from "node:crypto";
import { createServer } from "node:http";

const random = () => randomBytes(24).toString("base64url");
const sha256 = (text) => createHash("sha256").update(text).digest("base64url");
const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
const ES256 = (key) => ({ key, dsaEncoding: "ieee-p1363" });
const KID = "k1";

export async function startIssuer({ clientId = "foretide-page", audience = "foretide" } = {}) {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const state = {
    /** Of the tokens that it gives. */
    lifeS: 300,
    renews: true,
    aheadS: 0,
    groups: ["admins"],
    opaque: false,
    /** Error in place of tokens, as [status, body]. */
    refuses: null,
    isDown: false,
    given: 0,
    renewed: 0,
    revoked: [],
    /** The page's addresses, as they are registered. */
    pages: new Set(),
  };
  const codes = new Map();
  const renewals = new Map();
  const nowS = () => Math.floor(Date.now() / 1000) + state.aheadS;

  function jwt(claims) {
    const said = `${part({ alg: "ES256", typ: "JWT", kid: KID })}.${part(claims)}`;
    return `${said}.${sign("sha256", Buffer.from(said), ES256(privateKey)).toString("base64url")}`;
  }
  function tokens({ nonce, scope }) {
    const common = { iss: base(), sub: "ann", iat: nowS(), exp: nowS() + state.lifeS };
    const renewal = random();
    if (state.renews) renewals.set(renewal, { scope });
    state.given += 1;
    return {
      token_type: "Bearer",
      expires_in: state.lifeS,
      access_token: state.opaque ? random() : jwt({ ...common, aud: audience, groups: state.groups }),
      id_token: jwt({ ...common, aud: clientId, groups: state.groups, ...(nonce ? { nonce } : {}) }),
      ...(state.renews ? { refresh_token: renewal } : {}),
    };
  }

  /** What is wrong with a question; nothing if it may be asked. */
  function wrong(query) {
    const has = (name, value) => (query.get(name) === value ? "" : `${name} is ${query.get(name)}`);
    const lacks = ["state", "nonce", "code_challenge"].filter((name) => !(query.get(name)?.length >= 32));
    const page = state.pages.has(query.get("redirect_uri")) ? "" : `${query.get("redirect_uri")} is not registered`;
    const scope = query.get("scope")?.split(" ").includes("openid") ? "" : "scope lacks openid";
    return [has("client_id", clientId), has("response_type", "code"), has("code_challenge_method", "S256"), page, scope, ...lacks].filter(Boolean).join(", ");
  }
  function authorize(response, query) {
    const why = wrong(query);
    response.writeHead(why ? 400 : 200, { "content-type": "text/html; charset=utf-8" });
    const button = (name, text) => `<button name="answer" value="${name}">${text}</button>`;
    response.end(`<!doctype html><html lang="en"><title>Issuer</title>${why ? `<p>${why}</p>` : `<form method="post"><h1>May Foretide know you?</h1>${button("yes", "Yes, I am Ann")} ${button("no", "No")}</form>`}`);
  }
  function decide(response, query, answer) {
    const back = new URL(query.get("redirect_uri"));
    back.searchParams.set("iss", base());
    back.searchParams.set("state", query.get("state"));
    if (answer === "yes") {
      const code = random();
      codes.set(code, { challenge: query.get("code_challenge"), redirect: query.get("redirect_uri"), nonce: query.get("nonce"), scope: query.get("scope") });
      back.searchParams.set("code", code);
    } else {
      back.searchParams.set("error", "access_denied");
      back.searchParams.set("error_description", "Ann said no");
    }
    response.writeHead(302, { location: back.href });
    response.end();
  }
  /** Status and body of what is asked at the token endpoint. */
  function exchange(form) {
    if (state.refuses) return state.refuses;
    if (form.get("client_id") !== clientId || form.has("client_secret")) return [401, { error: "invalid_client" }];
    const bad = (why) => [400, { error: "invalid_grant", error_description: why }];
    if (form.get("grant_type") === "refresh_token") {
      const asked = renewals.get(form.get("refresh_token"));
      renewals.delete(form.get("refresh_token"));
      if (!asked) return bad("it was used or taken back");
      state.renewed += 1;
      return [200, tokens(asked)];
    }
    const asked = codes.get(form.get("code"));
    codes.delete(form.get("code"));
    if (!asked || asked.redirect !== form.get("redirect_uri")) return bad("no such code");
    if (asked.challenge !== sha256(form.get("code_verifier") ?? "")) return bad("the verifier does not fit");
    return [200, tokens(asked)];
  }

  async function answer(request, response) {
    const url = new URL(request.url, "http://issuer");
    const origin = request.headers.origin;
    const cors = state.pages.has(`${origin}/`) ? { "access-control-allow-origin": origin } : {};
    const json = (status, body) => {
      response.writeHead(status, { "content-type": "application/json", "cache-control": "no-store", ...cors });
      response.end(JSON.stringify(body));
    };
    if (state.isDown) return response.destroy();
    let body = "";
    for await (const piece of request) body += piece;
    const form = new URLSearchParams(body);
    switch (`${request.method} ${url.pathname}`) {
      case "GET /.well-known/openid-configuration":
        return json(200, { issuer: base(), jwks_uri: `${base()}/keys`, authorization_endpoint: `${base()}/authorize`, token_endpoint: `${base()}/token`, revocation_endpoint: `${base()}/revoke`, end_session_endpoint: `${base()}/logout`, authorization_response_iss_parameter_supported: true });
      case "GET /keys":
        return json(200, { keys: [{ ...publicKey.export({ format: "jwk" }), kid: KID, use: "sig" }] });
      case "GET /authorize":
        return authorize(response, url.searchParams);
      case "POST /authorize":
        return decide(response, url.searchParams, form.get("answer"));
      case "POST /token":
        return json(...exchange(form));
      case "POST /revoke":
        state.revoked.push(form.get("token"));
        renewals.delete(form.get("token"));
        return json(200, {});
      default:
        return json(404, {});
    }
  }

  const server = createServer((request, response) => void answer(request, response));
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const base = () => `http://127.0.0.1:${server.address().port}`;
  return {
    url: base(),
    clientId,
    audience,
    state,
    /** Takes back what renews sign-ins. */
    takeBack: () => renewals.clear(),
    stop: () =>
      new Promise((done) => {
        server.close(() => done());
        server.closeAllConnections();
      }),
  };
}

/** Believes tokens of an issuer as the control plane does: its key, its name, the audience, not over. */
export async function believing(issuer) {
  const discovery = await (await fetch(`${issuer.url}/.well-known/openid-configuration`)).json();
  const { keys } = await (await fetch(discovery.jwks_uri)).json();
  const key = createPublicKey({ key: keys[0], format: "jwk" });
  return (token, nowS) => {
    const [head, claims, signature] = token.split(".");
    if (!signature || !verify("sha256", Buffer.from(`${head}.${claims}`), ES256(key), Buffer.from(signature, "base64url"))) return null;
    const said = JSON.parse(Buffer.from(claims, "base64url"));
    return said.iss === discovery.issuer && said.aud === issuer.audience && said.exp > nowS ? said : null;
  };
}
