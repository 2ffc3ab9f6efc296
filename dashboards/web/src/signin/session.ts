// Who is in, as the API is shown it. A pasted token is what it is. One of an issuer ends after minutes: it is renewed by
// the first call that comes shortly before, all calls meanwhile waiting for that one renewal, so that no clock runs for
// it and a computer that slept is served as well.

import { ApiError, sentences } from "../api/client";
import { clock } from "../units";
import { keep, type Kept, type SignedIn } from "./kept";
import { renew } from "./oidc";

/** A token is renewed so long before its end, or in the middle of its life if that is later. */
const RENEW_BEFORE_MS = 60_000;
/** Between two questions to an issuer that does not answer. */
const PAUSE_MS = 5000;

/** What to do with a token now. */
export function step({ renewal, madeAt, endsAt }: SignedIn, now: number): "use" | "renew" | "end" {
  const renewAt = endsAt - Math.min(RENEW_BEFORE_MS, (endsAt - madeAt) / 2);
  if (now < (renewal === null ? endsAt : renewAt)) return "use";
  return renewal === null ? "end" : "renew";
}

export class Session {
  private renewing: Promise<string> | null = null;
  private askAgainAt = 0;

  constructor(private now: Kept) {}

  get what(): Kept {
    return this.now;
  }

  /** The token to show, good for now. Fails with 401 if only signing in again helps. */
  async token(): Promise<string> {
    const { now } = this;
    if (typeof now === "string") return now;
    switch (step(now, Date.now())) {
      case "use":
        return now.token;
      case "end":
        throw ended(now);
      case "renew":
        this.renewing ??= this.renew(now).finally(() => (this.renewing = null));
        return this.renewing;
    }
  }

  /** A token of an issuer may end on its way to the API, and the API's clock may be ahead: then the sign-in has ended. */
  refused(why: ApiError): ApiError {
    return typeof this.now === "string" ? why : ended(this.now, why);
  }

  private async renew(before: SignedIn): Promise<string> {
    const isGood = Date.now() < before.endsAt;
    if (isGood && Date.now() < this.askAgainAt) return before.token;
    try {
      const next = await renew(before, before.renewal ?? "");
      keep(next);
      this.now = next;
      return next.token;
    } catch (caught) {
      const why = ApiError.of(caught);
      this.askAgainAt = Date.now() + PAUSE_MS;
      const mayPass = why.status === 0 || why.status >= 500;
      if (!mayPass) throw ended(before, why);
      if (isGood) return before.token;
      throw why;
    }
  }
}

function ended(before: SignedIn, why?: ApiError): ApiError {
  const until = `${before.issuer} had signed you in until ${clock(before.endsAt * 1000)}`;
  return new ApiError(401, "your sign-in has ended", why ? sentences(until, why.title, why.detail) : until, "sign in again: you come back to what you were looking at");
}
