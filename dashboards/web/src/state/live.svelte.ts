// What the control plane tells, kept current: every list is asked for once, then again when an event says that it
// changed. If the stream breaks, everything shown stays, marked as of when, and the page comes back by itself.

import { ApiError, type Client } from "../api/client";
import { listen, type ServerEvent } from "../api/events";
import type { Forecast, Me, ModeView, MoveRecord, Plan, Policy, Profile, Proposals, Refusal, Run, Scope, Sites, Switch, Warmup } from "../api/types";
import { RunHistory } from "./history.svelte";
import { MoveBook } from "./moves";
import { Resource } from "./resource.svelte";

export type Connection = "connecting" | "live" | "lost" | "denied";

/** First wait before coming back; doubles up to the second, so that a restart is met soon and a dead host spared. */
const BACK_FIRST_MS = 500;
const BACK_MOST_MS = 8000;
/** The stream sends a comment at least every 15 s; twice that and a bit in silence is a dead connection. */
const SILENCE_MOST_MS = 35_000;
/** Everything is asked for again this often though no event said so: what expires does so without one. */
const REFRESH_MS = 15_000;
/** Refusals read, oldest first: the API keeps more. */
const REFUSALS_MOST = 20_000;
/** Each comes with its reads, and those can be thousands. */
const FORECASTS_PER_PAGE = 50;

const PARTS = ["sites", "plan", "moves", "forecasts", "profiles", "runs", "warmups", "refusals", "prefetch", "policy", "mode", "proposals", "me"] as const;
type Part = (typeof PARTS)[number];

/** Lists that an event of a kind touches; a kind that is not here touches all. */
const TOUCHES: Record<string, readonly Part[]> = {
  plan: ["plan", "proposals", "moves", "warmups"],
  site: ["sites", "moves", "runs"],
  forecasts: ["forecasts", "profiles"],
  warmup: ["warmups"],
  refusal: ["refusals"],
  agent: ["sites"],
  switch: ["prefetch"],
  mode: ["mode", "policy", "sites"],
};

export class Live {
  connection = $state<Connection>("connecting");
  /** When the last word came from the control plane, milliseconds since 1970. */
  heardAt = $state(0);
  /** Why the token is not taken. */
  denied = $state.raw<ApiError | null>(null);
  readonly history = new RunHistory();
  private readonly book = new MoveBook();

  readonly sites: Resource<Sites>;
  readonly plan: Resource<Plan | null>;
  readonly moves: Resource<MoveRecord[]>;
  readonly forecasts: Resource<Forecast[]>;
  readonly profiles: Resource<Profile[]>;
  readonly runs: Resource<Run[]>;
  readonly warmups: Resource<Warmup[]>;
  readonly refusals: Resource<Refusal[]>;
  readonly prefetch: Resource<Switch | null>;
  readonly policy: Resource<Policy | null>;
  readonly mode: Resource<ModeView | null>;
  /** What the plan in force would move if a mode did not hold it back. */
  readonly proposals: Resource<Proposed>;
  readonly me: Resource<Me | null>;

  private readonly stopping = new AbortController();
  private lastId = "";

  constructor(readonly client: Client) {
    const failed = (error: ApiError) => this.failed(error);
    this.sites = new Resource(() => client.get<Sites>("/v1/sites"), failed, { mode: "enforce", items: [] });
    this.plan = new Resource(() => latestPlan(client), failed, null);
    this.moves = new Resource(() => this.book.load(client), failed, []);
    this.forecasts = new Resource(() => client.list<Forecast>("/v1/forecasts", { reads: "true", limit: FORECASTS_PER_PAGE }), failed, []);
    this.profiles = new Resource(() => client.list<Profile>("/v1/profiles"), failed, []);
    this.runs = new Resource(() => this.loadRuns(), failed, []);
    this.warmups = new Resource(() => client.list<Warmup>("/v1/warmups"), failed, []);
    this.refusals = new Resource(() => client.list<Refusal>("/v1/refusals", {}, REFUSALS_MOST), failed, []);
    this.policy = new Resource(() => client.get<Policy>("/v1/policy"), failed, null);
    this.mode = new Resource(() => client.get<ModeView>("/v1/mode"), failed, null);
    this.proposals = new Resource(() => proposed(client), failed, { plan: null, items: [] });
    this.me = new Resource(() => client.get<Me>("/v1/me"), failed, null);
    this.prefetch = new Resource(() => client.get<Switch>("/v1/switch"), failed, null);
  }

  /** Begins to listen; the answer ends it. */
  start(): () => void {
    void this.keepListening();
    const refresh = setInterval(() => this.connection === "live" && this.touch(PARTS), REFRESH_MS);
    return () => {
      clearInterval(refresh);
      this.stopping.abort();
      for (const part of PARTS) this[part].stop();
    };
  }

  /** Whether the token holds the scope; until that is known, whether it may try. */
  may(scope: Scope): boolean {
    return this.me.value?.scopes.includes(scope) ?? true;
  }

  /** Chooses the mode; null for what is configured. */
  async setMode(mode: ModeView["mode"] | null): Promise<void> {
    await this.client.send("PUT", "/v1/mode", { mode });
    this.touch(["mode", "policy", "sites", "proposals"]);
  }

  /** Throws the switch. */
  async setPrefetch(off: boolean): Promise<void> {
    await this.client.send("PUT", "/v1/switch", { prefetch_off: off });
    this.prefetch.touch();
  }

  private async loadRuns(): Promise<Run[]> {
    const runs = await this.client.list<Run>("/v1/runs");
    this.history.add(runs, Date.now());
    return runs;
  }

  private async keepListening(): Promise<void> {
    let backMs = BACK_FIRST_MS;
    while (!this.stopping.signal.aborted) {
      const broken = new AbortController();
      let silence: ReturnType<typeof setTimeout> | undefined;
      const heard = (event: ServerEvent | null) => {
        clearTimeout(silence);
        silence = setTimeout(() => broken.abort(), SILENCE_MOST_MS);
        this.heardAt = Date.now();
        if (event) this.hear(event);
      };
      const opened = () => {
        backMs = BACK_FIRST_MS;
        this.connection = "live";
        this.denied = null;
        heard(null);
        this.book.forget();
        this.touch(PARTS);
      };
      try {
        await listen(this.client, this.lastId, AbortSignal.any([this.stopping.signal, broken.signal]), opened, heard);
      } catch (why) {
        if (why instanceof ApiError) this.failed(why);
      }
      clearTimeout(silence);
      if (this.connection === "denied" || this.stopping.signal.aborted) return;
      this.connection = "lost";
      await new Promise((done) => setTimeout(done, backMs));
      backMs = Math.min(2 * backMs, BACK_MOST_MS);
    }
  }

  private hear(event: ServerEvent): void {
    if (event.id) this.lastId = event.id;
    this.touch(TOUCHES[event.kind] ?? PARTS);
  }

  private touch(parts: readonly Part[]): void {
    for (const part of parts) this[part].touch();
  }

  /** A token that is not taken ends everything; any other failure is its panel's to show. */
  private failed(error: ApiError): void {
    if (error.status !== 401) return;
    this.denied = error;
    this.connection = "denied";
    this.stopping.abort();
  }
}

/** What a plan proposes. */
export interface Proposed {
  plan: string | null;
  items: Proposals["items"];
}

async function proposed(client: Client): Promise<Proposed> {
  const plan = await latestPlan(client);
  if (plan === null) return { plan: null, items: [] };
  try {
    const { items } = await client.get<Proposals>(`/v1/plans/${encodeURIComponent(plan.id)}/proposals`);
    return { plan: plan.id, items };
  } catch (why) {
    // A plan is made many times a second while much moves, and the oldest are forgotten.
    if (why instanceof ApiError && why.status === 404) return { plan: null, items: [] };
    throw why;
  }
}

/** None before the first plan is made. */
async function latestPlan(client: Client): Promise<Plan | null> {
  try {
    return await client.get<Plan>("/v1/plans/latest");
  } catch (why) {
    if (why instanceof ApiError && why.status === 404) return null;
    throw why;
  }
}
