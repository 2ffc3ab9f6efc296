// The bearer token: from the URL's fragment (never sent to a server, taken out of the address bar at once) or typed.
// It lives as long as the tab.

const KEY = "foretide.token";

export function takeToken(): string | null {
  const found = /(?:^#|&)token=([^&]*)/.exec(location.hash);
  if (found?.[1]) {
    sessionStorage.setItem(KEY, decodeURIComponent(found[1]));
    history.replaceState(null, "", location.pathname + location.search);
  }
  return sessionStorage.getItem(KEY);
}

export const keepToken = (token: string): void => sessionStorage.setItem(KEY, token);
export const dropToken = (): void => sessionStorage.removeItem(KEY);
