// What the tab keeps, as long as it lives: the token that it shows and, of a sign-in at an issuer, what renews it; and
// while somebody is away at the issuer, what the answer must fit.

const TOKEN = "foretide.token";
const SIGNED_IN = "foretide.signed-in";
const AWAY = "foretide.signing-in";

/** Of a sign-in at an issuer. Moments are this browser's, milliseconds since 1970. */
export interface SignedIn {
  /** What people call the issuer. */
  issuer: string;
  /** What the API is shown. */
  token: string;
  /** What the issuer gives a new one for; null if it gave none. */
  renewal: string | null;
  /** Tells the issuer's own sign-out who it was. */
  idToken: string | null;
  madeAt: number;
  endsAt: number;
}

/** What this tab asked an issuer. */
export interface Asked {
  issuer: string;
  state: string;
  nonce: string;
  /** PKCE: the question carried its digest. */
  verifier: string;
  /** The fragment of what was being looked at. */
  view: string;
}

export type Kept = string | SignedIn;

/** A pasted token is a text; null if nobody has come in. */
export function kept(): Kept | null {
  return told<SignedIn>(SIGNED_IN) ?? sessionStorage.getItem(TOKEN);
}

export function keep(what: Kept): void {
  forget();
  if (typeof what === "string") sessionStorage.setItem(TOKEN, what);
  else sessionStorage.setItem(SIGNED_IN, JSON.stringify(what));
}

export function forget(): void {
  sessionStorage.removeItem(TOKEN);
  sessionStorage.removeItem(SIGNED_IN);
}

export const keepAsked = (asked: Asked): void => sessionStorage.setItem(AWAY, JSON.stringify(asked));

/** What was asked, once: an answer is taken once. */
export function takeAsked(): Asked | null {
  const asked = told<Asked>(AWAY);
  sessionStorage.removeItem(AWAY);
  return asked;
}

function told<T>(key: string): T | null {
  const text = sessionStorage.getItem(key);
  return text === null ? null : (JSON.parse(text) as T);
}
