// Which view is open: the URL's fragment, so that each has its own address.

export const VIEWS = {
  now: "Now",
  heat: "Heat",
  workloads: "Workloads",
  sites: "Sites",
  warmups: "Warm-ups",
  where: "Where",
  whatif: "What if",
  governance: "Governance",
} as const;
export type ViewName = keyof typeof VIEWS;

const named = (): ViewName => {
  const name = location.hash.slice(1);
  return name in VIEWS ? (name as ViewName) : "now";
};

class Route {
  view = $state<ViewName>(named());

  constructor() {
    addEventListener("hashchange", () => this.look());
  }

  /** Looks at the fragment again, for who changed it without an event. */
  look(): void {
    this.view = named();
  }
}

export const route = new Route();
