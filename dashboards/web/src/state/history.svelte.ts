// How each run went since the page was opened: the API tells sums, and the difference of two sums is what happened
// between them.

import { SvelteMap } from "svelte/reactivity";
import type { Run } from "../api/types";

/** Samples kept per run: ten minutes at one a second; then every second one is dropped. */
const SAMPLES_MOST = 600;

export interface Sample {
  /** Milliseconds since 1970. */
  at: number;
  waitedS: number;
  bytes: number;
  prefetched: number;
}

export class RunHistory {
  private readonly byRun = new SvelteMap<string, Sample[]>();

  add(runs: readonly Run[], at: number): void {
    for (const run of runs) {
      if (run.reads === 0) continue;
      const before = this.byRun.get(run.run) ?? [];
      const last = before[before.length - 1];
      if (last && run.ended_at != null && last.bytes === run.bytes && last.waitedS === run.waited_s) continue;
      const sample = { at, waitedS: run.waited_s, bytes: run.bytes, prefetched: run.prefetched_bytes };
      const kept = before.length < SAMPLES_MOST ? before : before.filter((_, i) => i % 2 === 1);
      this.byRun.set(run.run, [...kept, sample]);
    }
    const known = new Set(runs.map((r) => r.run));
    for (const run of this.byRun.keys()) if (!known.has(run)) this.byRun.delete(run);
  }

  of(run: string): readonly Sample[] {
    return this.byRun.get(run) ?? [];
  }
}
