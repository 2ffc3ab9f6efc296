// From forecasts to the ticks under a lane: when each read is expected, from the median (p50) to the time by which it
// has happened with probability 0.9 (p90). Pure.

import type { Forecast, PredictedRead } from "../api/types";
import type { Millis, View } from "./bars";

export interface Tick {
  read: PredictedRead;
  forecast: Forecast;
  p50: Millis;
  p90: Millis;
}

export function ticksOf(forecasts: readonly Forecast[]): Tick[] {
  return forecasts
    .flatMap((forecast) =>
      (forecast.reads ?? []).map((read) => ({
        read,
        forecast,
        p50: read.window.p50 / 1000,
        p90: read.window.p90 / 1000,
      })),
    )
    .sort((a, b) => a.p50 - b.p50);
}

/** Rows of ticks that a lane has room for. */
export const TICK_ROWS = 4;
const GAP_PX = 2;

export interface TickRows {
  kind: "ticks";
  rows: Tick[][];
}
export interface TickColumns {
  kind: "columns";
  fromMs: Millis;
  stepMs: number;
  /** Bytes expected with probability 0.5 in each column, weighted by probability. */
  p50: Float64Array;
  /** The same by p90. */
  p90: Float64Array;
  /** Reads with their p50 in each column. */
  reads: Uint32Array;
  most: number;
}

export function arrangeTicks(ticks: readonly Tick[], view: View, widthPx: number, columnPx: number): TickRows | TickColumns {
  const seen = ticks.filter((t) => t.p90 >= view.from && t.p50 <= view.to);
  const gap = (GAP_PX * (view.to - view.from)) / widthPx;
  return rowsOf(seen, gap) ?? columnsOf(seen, view, widthPx, columnPx);
}

function rowsOf(ticks: readonly Tick[], gap: number): TickRows | null {
  const rows: Tick[][] = [];
  for (const tick of ticks) {
    const row = rows.find((r) => r[r.length - 1]!.p90 + gap <= tick.p50);
    if (row) row.push(tick);
    else if (rows.length < TICK_ROWS) rows.push([tick]);
    else return null;
  }
  return { kind: "ticks", rows };
}

function columnsOf(ticks: readonly Tick[], view: View, widthPx: number, columnPx: number): TickColumns {
  const stepMs = ((view.to - view.from) / widthPx) * columnPx;
  const first = Math.floor(view.from / stepMs);
  const size = Math.ceil(view.to / stepMs) - first;
  const p50 = new Float64Array(size);
  const p90 = new Float64Array(size);
  const reads = new Uint32Array(size);
  for (const { read, ...tick } of ticks) {
    const expected = read.length * read.probability;
    const a = Math.floor(tick.p50 / stepMs) - first;
    const b = Math.floor(tick.p90 / stepMs) - first;
    if (a >= 0 && a < size) {
      p50[a]! += expected;
      reads[a]! += 1;
    }
    if (b >= 0 && b < size) p90[b]! += expected;
  }
  return { kind: "columns", fromMs: first * stepMs, stepMs, p50, p90, reads, most: Math.max(...p50, ...p90, 1) };
}

/** Predicted reads whose p50 to p90 comes within `reachMs` of a moment, nearest p50 first. */
export function ticksAt(ticks: readonly Tick[], at: Millis, reachMs: number): Tick[] {
  return ticks
    .filter((t) => t.p50 - reachMs <= at && at <= t.p90 + reachMs)
    .sort((x, y) => Math.abs(x.p50 - at) - Math.abs(y.p50 - at));
}
