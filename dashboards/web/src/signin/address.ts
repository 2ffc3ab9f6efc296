// What comes in the address and is taken out of it at once: a token in the fragment (never sent to a server), and an
// issuer's answer in the query.

/** A token in the fragment. */
export function takeToken(): string | null {
  const found = /(?:^#|&)token=([^&]*)/.exec(location.hash)?.[1];
  if (!found) return null;
  history.replaceState(null, "", location.pathname + location.search);
  return decodeURIComponent(found);
}

/** What an issuer answers in the query. */
export function takeAnswer(): URLSearchParams | null {
  const query = new URLSearchParams(location.search);
  if (!query.has("state") || !(query.has("code") || query.has("error"))) return null;
  history.replaceState(null, "", location.pathname + location.hash);
  return query;
}

/** Where an issuer sends people back to: the page, as it is registered there. */
export const ownAddress = (): string => `${location.origin}/`;
