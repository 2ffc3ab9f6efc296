// The plan against the reads that it is for, in one picture: bytes that will have been read by each moment, and bytes
// that will be in place by then. While the second lies above the first nobody waits. Pure.

import type { Forecast, Link, MoveRecord } from "../api/types";
import { barOf, type Millis } from "../timeline/bars";

export interface Point {
  at: Millis;
  bytes: number;
}
export interface Curves {
  /** Reads by their median time, weighted by probability. */
  p50: Point[];
  /** The same by the time at which nine in ten have happened. */
  p90: Point[];
  /** In place, up to the present. */
  arrived: Point[];
  /** To be in place, from the present on. */
  coming: Point[];
  from: Millis;
  to: Millis;
  most: number;
}

/** Points of a curve: more cannot be seen. */
const POINTS_MOST = 300;

export function curvesOf(workload: string, forecasts: readonly Forecast[], moves: readonly MoveRecord[], links: readonly Link[], now: Millis): Curves | null {
  const reads = forecasts.filter((f) => f.workload === workload).flatMap((f) => f.reads ?? []);
  const mine = moves.filter((m) => m.cause.kind === "forecast" && m.cause.workload === workload);
  const bars = mine.filter((m) => m.state !== "failed" && m.state !== "cancelled").map((m) => barOf(m, links.find((l) => l.from === m.from && l.to === m.to), now));
  if (reads.length === 0 && bars.length === 0) return null;
  const done = bars.filter((b) => b.state === "done").map((b) => ({ at: b.end, bytes: b.bytes }));
  const open = bars.filter((b) => b.state !== "done").map((b) => ({ at: Math.max(b.end, now), bytes: b.bytes }));
  const arrived = running(done, 0);
  const here = arrived.at(-1)?.bytes ?? 0;
  const p50 = running(reads.map((r) => ({ at: r.window.p50 / 1000, bytes: r.length * r.probability })), 0);
  const p90 = running(reads.map((r) => ({ at: r.window.p90 / 1000, bytes: r.length * r.probability })), 0);
  const coming = running(open, here);
  const all = [...p50, ...p90, ...arrived, ...coming];
  const from = all.reduce((m, p) => Math.min(m, p.at), Infinity);
  const last = all.reduce((m, p) => Math.max(m, p.at), -Infinity);
  // Long after the last of it the present is left out, or the picture would be squeezed to the left edge.
  const to = now - last < (last - from) / 4 ? Math.max(last, now) : last;
  const level = (points: Point[], until: Millis): Point[] => (points.length > 0 ? [...points, { at: until, bytes: points.at(-1)!.bytes }] : points);
  return {
    p50,
    p90,
    arrived: level(arrived, Math.min(now, to)),
    coming: coming.length > 0 ? [{ at: now, bytes: here }, ...coming] : coming,
    from,
    to: Math.max(to, from + 1),
    most: all.reduce((m, p) => Math.max(m, p.bytes), 1),
  };
}

function running(steps: Point[], from: number): Point[] {
  let sum = from;
  const all = steps.sort((a, b) => a.at - b.at).map(({ at, bytes }) => ({ at, bytes: (sum += bytes) }));
  const every = Math.ceil(all.length / POINTS_MOST);
  return all.filter((_, i) => i % every === 0 || i === all.length - 1);
}

/** A staircase: nothing is in place before it is. */
export function stairs(points: readonly Point[], x: (at: Millis) => number, y: (bytes: number) => number): string {
  return points.map((p, i) => (i === 0 ? `M${x(p.at).toFixed(1)} ${y(p.bytes).toFixed(1)}` : `H${x(p.at).toFixed(1)}V${y(p.bytes).toFixed(1)}`)).join("");
}
