// Light or dark: the system's wish, unless the reader chose. What paints pixels itself reads `current.theme` to be
// painted anew.

const KEY = "foretide.theme";
export type Theme = "light" | "dark";

const wish = matchMedia("(prefers-color-scheme: dark)");

function wanted(): Theme {
  const chosen = localStorage.getItem(KEY);
  if (chosen === "light" || chosen === "dark") return chosen;
  return wish.matches ? "dark" : "light";
}

class Current {
  theme = $state<Theme>(wanted());

  apply(): void {
    this.theme = wanted();
    document.documentElement.dataset.theme = this.theme;
  }

  toggle(): void {
    localStorage.setItem(KEY, this.theme === "dark" ? "light" : "dark");
    this.apply();
  }
}

export const current = new Current();
wish.addEventListener("change", () => current.apply());
