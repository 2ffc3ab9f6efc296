// What a run's waiting says of its accelerators. Pure.

import type { Profile, Run } from "../api/types";

export interface Au {
  /** Utilisation, compute time over total time, is at least this: what the API can vouch for. */
  least: number | null;
  /** And probably this. */
  estimate: number | null;
  elapsedS: number;
  readers: number;
}

/**
 * The API knows how long readers waited in all, and vouches that the accelerator lost no more than that. With several
 * readers side by side it lost about what each of them waited on average: the estimate. Neither counts the reading
 * ahead that a loader does, so both err on the side of too low.
 */
export function auOf(run: Run, profile: Profile | undefined, nowMs: number): Au {
  const elapsedS = Math.max(0, ((run.ended_at ?? nowMs * 1000) - run.started_at) / 1e6);
  const readers = Math.max(1, profile?.readers ?? 1);
  const lost = run.stalled_share_at_most;
  const least = lost == null ? null : 1 - lost;
  const estimate = run.reads > 0 && elapsedS > 0 ? Math.max(least ?? 0, Math.min(1, 1 - run.waited_s / readers / elapsedS)) : null;
  return { least, estimate, elapsedS, readers };
}
