// What goes wrong at an issuer, in words that say what to do. Status 0: it may well answer the next time.

import * as oauth from "oauth4webapi";
import { ApiError } from "../api/client";

const AGAIN = "sign in again";
const BY_AN_ADMIN = "an admin compares [api.oidc.page] of the control plane with this client at the issuer";

/** What an issuer's error means to who signs in (RFC 6749, OpenID Connect Core); the rest is an admin's. */
const MEANINGS: Record<string, [title: (name: string) => string, remedy: string]> = {
  access_denied: [(name) => `you were not let in by ${name}`, "sign in again and agree, or ask those who run it for access to Foretide"],
  invalid_grant: [(name) => `${name} does not take this sign-in any more`, AGAIN],
  login_required: [(name) => `${name} wants you to sign in there first`, AGAIN],
  interaction_required: [(name) => `${name} wants to ask you something first`, AGAIN],
  consent_required: [(name) => `${name} wants you to agree first`, AGAIN],
  server_error: [(name) => `${name} has failed`, "try again in a moment"],
  temporarily_unavailable: [(name) => `${name} has too much to do`, "try again in a moment"],
  invalid_client: [(name) => `${name} does not know this page`, `${BY_AN_ADMIN}, which has to be a public one, without a secret`],
};
const MAY_PASS = ["server_error", "temporarily_unavailable"];

/** An answer that is to no question of this tab. */
export const notOurs = (name: string): ApiError =>
  new ApiError(400, "this sign-in was not begun here", `the answer of ${name} fits nothing that this tab asked; it may be an old one, or another's`, `nothing of it was taken: ${AGAIN}`);

export function inWords(why: unknown, name: string): ApiError {
  if (why instanceof ApiError) return why;
  if (why instanceof oauth.AuthorizationResponseError || why instanceof oauth.ResponseBodyError) return answered(name, why.error, why.error_description ?? "");
  if (why instanceof oauth.OperationProcessingError) return unfit(name, why);
  if (why instanceof DOMException || why instanceof TypeError)
    return new ApiError(0, `${name} does not answer`, `it is down, or does not let pages of ${location.origin} ask (CORS)`, "try again; if it stays, an admin names this page's address at the issuer");
  return new ApiError(400, `signing in at ${name} failed`, String(why), AGAIN);
}

function answered(name: string, error: string, description: string): ApiError {
  const [title, remedy] = MEANINGS[error] ?? [() => `${name} refused`, BY_AN_ADMIN];
  return new ApiError(MAY_PASS.includes(error) ? 0 : 400, title(name), description ? `it says “${description}” (${error})` : `it says ${error}`, remedy);
}

function unfit(name: string, why: oauth.OperationProcessingError): ApiError {
  switch (why.code) {
    case oauth.INVALID_RESPONSE:
      // Only what came in the address stands there as parameters; else it is an answer of the issuer itself.
      return why.cause instanceof Object && "parameters" in why.cause ? notOurs(name) : unexpected(name, why.message);
    case oauth.JWT_TIMESTAMP_CHECK:
      return new ApiError(400, `the clocks of ${name} and the control plane differ`, why.message, "an admin sets both by NTP, or gives api.oidc.leeway_s");
    case oauth.JWT_CLAIM_COMPARISON:
      return new ApiError(400, `the token of ${name} is not for this sign-in`, why.message, `nothing of it was taken: ${AGAIN}`);
    case oauth.RESPONSE_IS_NOT_CONFORM:
    case oauth.RESPONSE_IS_NOT_JSON:
      return new ApiError(0, `${name} has failed`, why.message, "try again in a moment");
    default:
      return unexpected(name, why.message);
  }
}

const unexpected = (name: string, message: string): ApiError => new ApiError(400, `${name} answered what is not understood here`, message, BY_AN_ADMIN);
