// Workloads against time: of the reads that fell into each span, how many found their bytes, came too early for them,
// or were foreseen by nobody. The API tells sums for each run; a run's reads are spread evenly over its time. Pure.

import type { Profile, Run } from "../api/types";
import type { Millis } from "../timeline/bars";
import { jobName } from "../units";

export interface Cell {
  hits: number;
  late: number;
  misses: number;
  bytes: number;
  runs: number;
}
export interface Row {
  workload: string;
  name: string;
  cells: Cell[];
  reads: number;
  bytes: number;
}
export interface Grid {
  from: Millis;
  stepMs: number;
  columns: number;
  rows: Row[];
  /** Bytes in the fullest cell. */
  most: number;
}

const COLUMNS = 60;
/** Spans that a person can name. */
const STEPS_MS = [1, 2, 5, 10, 30, 60, 300, 600, 1800, 3600, 7200, 21_600, 86_400].map((s) => s * 1000);

export function gridOf(runs: readonly Run[], profiles: readonly Profile[], now: Millis): Grid | null {
  const read = runs.filter((r) => r.reads > 0);
  if (read.length === 0) return null;
  const first = read.reduce((m, r) => Math.min(m, r.started_at / 1000), Infinity);
  const last = read.reduce((m, r) => Math.max(m, r.ended_at == null ? now : r.ended_at / 1000), -Infinity);
  const stepMs = STEPS_MS.find((s) => (last - first) / s <= COLUMNS - 1) ?? Math.ceil((last - first) / (COLUMNS - 1));
  const from = Math.floor(first / stepMs) * stepMs;
  const columns = Math.max(1, Math.ceil((last - from) / stepMs));
  const names = new Map(profiles.map((p) => [p.workload, p.command]));
  const rows = new Map<string, Row>();
  for (const run of read) {
    let row = rows.get(run.workload);
    if (!row) {
      const cells = Array.from({ length: columns }, () => ({ hits: 0, late: 0, misses: 0, bytes: 0, runs: 0 }));
      row = { workload: run.workload, name: jobName({ command: names.get(run.workload) || run.command, workload: run.workload }), cells, reads: 0, bytes: 0 };
      rows.set(run.workload, row);
    }
    row.reads += run.reads;
    row.bytes += run.bytes;
    spread(row.cells, run, from, stepMs, now);
  }
  const sorted = [...rows.values()].sort((a, b) => b.bytes - a.bytes);
  const most = Math.max(1, ...sorted.flatMap((r) => r.cells.map((c) => c.bytes)));
  return { from, stepMs, columns, rows: sorted, most };
}

function spread(cells: Cell[], run: Run, from: Millis, stepMs: number, now: Millis): void {
  const start = run.started_at / 1000;
  const end = Math.max(start + 1, run.ended_at == null ? now : run.ended_at / 1000);
  const last = Math.min(cells.length - 1, Math.floor((end - from) / stepMs));
  for (let i = Math.max(0, Math.floor((start - from) / stepMs)); i <= last; i += 1) {
    const inside = Math.min(end, from + (i + 1) * stepMs) - Math.max(start, from + i * stepMs);
    const part = Math.max(0, inside) / (end - start);
    const cell = cells[i]!;
    cell.hits += run.hits * part;
    cell.late += run.late * part;
    cell.misses += run.misses * part;
    cell.bytes += run.bytes * part;
    cell.runs += 1;
  }
}
