// Numbers on the page equal the API's. Each number on the page is a <data> or carries `data-of`, the place in the API
// that it comes from; here the place is looked up by other code than the page's own, from answers fetched beside it.

/** The API is asked again and again beside the page; a number that moves must lie between two of these answers. */
const TRIES = 15;
/** Answers older than this say nothing of what the page may show. */
const WINDOW_MS = 6000;

export class Api {
  constructor(url, token) {
    this.url = url;
    this.token = token;
  }
  async get(path) {
    const answer = await fetch(this.url + path, { headers: { Authorization: `Bearer ${this.token}` } });
    if (answer.status === 404) return null;
    if (!answer.ok) throw new Error(`GET ${path}: ${answer.status} ${await answer.text()}`);
    return answer.json();
  }
  async list(path) {
    const items = [];
    let cursor = "";
    do {
      const page = await this.get(`${path}${path.includes("?") ? "&" : "?"}limit=1000${cursor}`);
      items.push(...page.items);
      cursor = page.next == null ? "" : `&cursor=${page.next}`;
    } while (cursor);
    return items;
  }
  async all() {
    const [sites, moves, profiles, runs, warmups, refusals, plan] = await Promise.all([
      this.get("/v1/sites"), this.list("/v1/moves"), this.list("/v1/profiles"), this.list("/v1/runs"), this.list("/v1/warmups"), this.list("/v1/refusals"), this.get("/v1/plans/latest"),
    ]);
    // A plan may be forgotten while it is asked about.
    const proposals = plan ? ((await this.get(`/v1/plans/${plan.id}/proposals`))?.items ?? []) : [];
    return { proposals, sites: sites.items, moves, profiles, runs, warmups, refusals, plan };
  }
}

const sum = (items, of) => items.reduce((total, item) => total + of(item), 0);
const find = (items, key, id) => items.find((item) => item[key] === id);

/** The API's value for a place such as `sites/gpu/resident_bytes`; undefined if the API has none. */
export function lookUp(api, of) {
  const parts = of.split("/");
  const [what, id, field] = [parts[0], parts.slice(1, -1).join("/"), parts.at(-1)];
  switch (what) {
    case "sites":
      return find(api.sites, "site", id)?.[field];
    case "runs": {
      const run = find(api.runs, "run", id);
      return field === "au_least" ? run && 1 - run.stalled_share_at_most : run?.[field];
    }
    case "profiles":
      if (!id && field === "count") return api.profiles.length;
      return find(api.profiles, "workload", id)?.[field];
    case "warmups":
      return id === "count" ? api.warmups.filter((w) => w.state === field).length : find(api.warmups, "id", id)?.[field];
    case "moves": {
      const those = api.moves.filter((m) => m.state === field);
      return id === "count" ? those.length : id === "bytes" ? sum(those, (m) => m.length) : find(api.moves, "id", id)?.[field];
    }
    case "lanes":
      return api.moves.filter((m) => `${m.from}→${m.to}` === id && m.state === field).length;
    case "refusals":
      return api.refusals.length;
    case "proposals":
      return id ? api.proposals[Number(id)]?.[field] : sum(api.proposals, (l) => l[field]);
    case "plan":
      return api.plan?.left_out[Number(parts[2])]?.[field];
    case "sum":
      return sums(api.sites)[field];
    default:
      throw new Error(`the page names a place that this test does not know: ${of}`);
  }
}

function sums(sites) {
  const read = sum(sites, (s) => s.read_bytes);
  const brought = sum(sites, (s) => s.prefetched_bytes);
  return {
    read_bytes: read,
    prefetched_bytes: brought,
    coverage: read > 0 ? sum(sites, (s) => s.read_prefetched_bytes) / read : undefined,
    waste: brought > 0 ? sum(sites, (s) => s.wasted_bytes) / brought : undefined,
  };
}

/** Reads what the page shows. */
const shown = (page) =>
  page.$$eval("[data-of]", (nodes) =>
    nodes.map((n) => ({
      of: n.dataset.of,
      kind: n.dataset.kind ?? (n.tagName === "TIME" ? "time" : "word"),
      value: n.tagName === "DATA" ? n.value : n.tagName === "TIME" ? n.dateTime : n.textContent.trim(),
      text: n.textContent.trim(),
    })),
  );

const SCALE = { B: 1, kB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12, PB: 1e15, EB: 1e18, "bit/s": 1, "kbit/s": 1e3, "Mbit/s": 1e6, "Gbit/s": 1e9, ms: 1e-3, s: 1, min: 60, h: 3600, d: 86_400, "%": 0.01, "": 1 };

/** What the printed text means as a number, and by how much its rounding may be off. */
export function meaning(text) {
  const found = /^([<>] )?([−-]?[\d,]*\.?\d+)\s*([A-Za-z%/]*)$/.exec(text);
  if (!found || !(found[3] in SCALE)) return null;
  const digits = found[2].replaceAll(",", "").replace("−", "-");
  const step = 10 ** -(digits.split(".")[1]?.length ?? 0);
  const places = digits.replace(/^-?0*\.?0*/, "").replace(".", "").length;
  const coarse = Math.max(step / 2, places >= 3 ? 0 : (Math.abs(Number(digits)) * 5) / 10 ** places);
  return { number: Number(digits) * SCALE[found[3]], off: coarse * SCALE[found[3]] * (1 + 1e-9), bound: found[1]?.trim() };
}

/** Why the item is not what the API said around it; null if it is. What stands still must be equal. */
function wrong(item, answers) {
  const expected = answers.map((api) => lookUp(api, item.of)).filter((v) => v !== undefined && v !== null);
  if (expected.length === 0) return `${item.of}: the page shows ${item.text}, the API has nothing`;
  if (item.kind === "word") return expected.map(String).includes(item.value) ? null : `${item.of}: page ${item.value}, API ${expected}`;
  const value = item.kind === "time" ? new Date(item.value).getTime() : Number(item.value);
  const told = item.kind === "time" ? expected.map((v) => Math.floor(v / 1000)) : expected;
  const slack = 1e-9 * Math.max(1, ...told.map(Math.abs));
  if (value < Math.min(...told) - slack || value > Math.max(...told) + slack) return `${item.of}: page ${value}, API ${[...new Set(told)].join(" to ")}`;
  if (item.kind === "time") return null;
  const said = meaning(item.text);
  if (!said) return `${item.of}: ${JSON.stringify(item.text)} is no number with a unit`;
  return said.bound || Math.abs(said.number - value) <= said.off ? null : `${item.of}: ${JSON.stringify(item.text)} is not ${value}`;
}

/** Compares every number on the page; answers how many. */
export async function expectEqual(page, api) {
  let answers = [];
  let last = [];
  for (let i = 0; i < TRIES; i += 1) {
    answers.push({ at: Date.now(), all: await api.all() });
    const items = await shown(page);
    answers = answers.filter((a) => Date.now() - a.at < WINDOW_MS || a === answers.at(-1));
    last = items.map((item) => wrong(item, answers.map((a) => a.all))).filter(Boolean);
    if (last.length === 0 && items.length > 0) return items.length;
    await page.waitForTimeout(400);
  }
  throw new Error(`numbers on the page are not the API's:\n  ${last.slice(0, 12).join("\n  ") || "the page shows none"}`);
}
