// Signing in at an OpenID Connect issuer: authorization code flow with PKCE, as a public client. The protocol is
// oauth4webapi's; here stands what is asked and which token is kept. An ID token's signature is not checked here: it
// comes from the issuer itself over TLS, and the API checks whatever it is shown.

import * as oauth from "oauth4webapi";
import { ApiError, waysIn } from "../api/client";
import type { Issuer } from "../api/types";
import { ownAddress } from "./address";
import type { Asked, SignedIn } from "./kept";
import { inWords, notOurs } from "./words";

/** An issuer that takes longer is down. */
const PATIENCE_MS = 15_000;
/** Signatures with an issuer's public key. */
const SIGNED_WITH = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"];

/** Browsers give a page cryptography only if nobody on the way can have changed it. */
export const canSignIn = (): boolean => isSecureContext;

/** What this tab asks, and the address that asks it. */
export async function question(issuer: Issuer, view: string): Promise<{ asked: Asked; address: string }> {
  const asked = { issuer: issuer.issuer, state: oauth.generateRandomState(), nonce: oauth.generateRandomNonce(), verifier: oauth.generateRandomCodeVerifier(), view };
  const address = new URL(issuer.authorization_endpoint);
  const said = {
    ...issuer.parameters,
    response_type: "code",
    client_id: issuer.client_id,
    redirect_uri: ownAddress(),
    scope: issuer.scope,
    state: asked.state,
    nonce: asked.nonce,
    code_challenge: await oauth.calculatePKCECodeChallenge(asked.verifier),
    code_challenge_method: "S256",
  };
  for (const [name, value] of Object.entries(said)) address.searchParams.set(name, value);
  return { asked, address: address.href };
}

/** Somebody is back from the issuer, with its answer to what this tab asked. */
export async function finish(answer: URLSearchParams, asked: Asked | null): Promise<SignedIn> {
  const issuer = await sole();
  if (asked === null || asked.issuer !== issuer.issuer) throw notOurs(issuer.name);
  return told(issuer, async (server, client) => {
    const good = oauth.validateAuthResponse(server, client, answer, asked.state);
    const response = await oauth.authorizationCodeGrantRequest(server, client, oauth.None(), good, ownAddress(), asked.verifier, request());
    return oauth.processAuthorizationCodeResponse(server, client, response, { expectedNonce: asked.nonce, requireIdToken: true });
  });
}

/** The same person's next token. */
export async function renew(before: SignedIn, renewal: string): Promise<SignedIn> {
  const next = await told(await sole(), async (server, client) => {
    const response = await oauth.refreshTokenGrantRequest(server, client, oauth.None(), renewal, request());
    return oauth.processRefreshTokenResponse(server, client, response);
  });
  return { ...next, renewal: next.renewal ?? renewal, idToken: next.idToken ?? before.idToken };
}

/** Gives back what renews a sign-in, if the issuer takes it back. */
export async function giveBack(signedIn: SignedIn): Promise<void> {
  const { oidc: issuer } = await waysIn();
  if (!issuer?.revocation_endpoint || !signedIn.renewal) return;
  const response = await oauth.revocationRequest(serverOf(issuer), clientOf(issuer), oauth.None(), signedIn.renewal, request());
  await oauth.processRevocationResponse(response);
}

/** Where this person signs out of the issuer itself; null if it has no such page. */
export function signOutAddress(issuer: Issuer, idToken: string | null): string | null {
  if (!issuer.end_session_endpoint) return null;
  const address = new URL(issuer.end_session_endpoint);
  address.searchParams.set("client_id", issuer.client_id);
  if (idToken) address.searchParams.set("id_token_hint", idToken);
  return address.href;
}

async function sole(): Promise<Issuer> {
  const { oidc } = await waysIn();
  if (!oidc) throw new ApiError(400, "nobody is sent to an issuer any more", "the control plane's configuration has no [api.oidc.page]", "show an API token");
  return oidc;
}

const request = () => ({ [oauth.allowInsecureRequests]: true, signal: AbortSignal.timeout(PATIENCE_MS) });

/** Its endpoints are https, as the control plane sees to, unless it is on that very machine. */
function serverOf(issuer: Issuer): oauth.AuthorizationServer {
  return {
    issuer: issuer.issuer,
    token_endpoint: issuer.token_endpoint,
    revocation_endpoint: issuer.revocation_endpoint ?? undefined,
    authorization_response_iss_parameter_supported: issuer.names_itself,
    id_token_signing_alg_values_supported: SIGNED_WITH,
  };
}

/** Moments are judged by the control plane's clock: this computer's may be wrong. */
const clientOf = (issuer: Issuer): oauth.Client => ({ client_id: issuer.client_id, [oauth.clockSkew]: Math.round(aheadMs(issuer) / 1000), [oauth.clockTolerance]: issuer.leeway_s });

const aheadMs = (issuer: Issuer): number => issuer.now / 1000 - Date.now();

async function told(issuer: Issuer, ask: (server: oauth.AuthorizationServer, client: oauth.Client) => Promise<oauth.TokenEndpointResponse>): Promise<SignedIn> {
  const behindMs = -aheadMs(issuer);
  const answer = await ask(serverOf(issuer), clientOf(issuer)).catch((why: unknown) => {
    throw inWords(why, issuer.name);
  });
  const token = issuer.shown_token === "id" ? answer.id_token : answer.access_token;
  const ends = token === undefined ? null : endOf(token);
  if (token === undefined || ends === null) throw noJwt(issuer);
  return { issuer: issuer.name, token, renewal: answer.refresh_token ?? null, idToken: answer.id_token ?? null, madeAt: Date.now(), endsAt: ends * 1000 + behindMs };
}

/** `exp` of a JWT, seconds; null if it is none that the API could take. */
export function endOf(token: string): number | null {
  const [, claims, signature] = token.split(".");
  if (!claims || !signature) return null;
  try {
    const { exp } = JSON.parse(atob(claims.replaceAll("-", "+").replaceAll("_", "/"))) as { exp?: unknown };
    return typeof exp === "number" ? exp : null;
  } catch {
    return null;
  }
}

const noJwt = (issuer: Issuer): ApiError =>
  new ApiError(
    400,
    `${issuer.name} gave no token that can be checked here`,
    `the control plane takes ${issuer.shown_token === "id" ? "the ID token" : "a signed access token (JWT)"} for its own audience, and none came`,
    "an admin sees to it that the issuer knows that audience; api.oidc.page.parameters can name it",
  );
