// From moves to what a lane draws. Pure: `now` is an argument.
//
// A move is a bar from its start to its end (or where its end is expected at the link's rate). A lane is drawn in one
// of two ways, decided anew for what is in view: single bars in rows while each can be told apart, else merged into
// columns whose height is the link's use. 4,000 small files in a second are then one shape, not 4,000 slivers.

import type { Link, MoveRecord, MoveState } from "../api/types";

/** Milliseconds since 1970: the unit of everything on the time axis. */
export type Millis = number;

/** How much time there is between a move's end and the moment the bytes are due. */
export type Slack = "late" | "tight" | "fair" | "ample";
export const SLACKS: readonly Slack[] = ["late", "tight", "fair", "ample"];
/** Below this it is late; the others are bounds in seconds of what a person can still do something about. */
const TIGHT_S = 2;
const FAIR_S = 30;
export const SLACK_WORDS: Record<Slack, string> = {
  late: "late",
  tight: `< ${TIGHT_S} s`,
  fair: `< ${FAIR_S} s`,
  ample: `≥ ${FAIR_S} s`,
};

export interface Bar {
  record: MoveRecord;
  start: Millis;
  end: Millis;
  /** Seconds between the end, real or expected, and the due time. */
  slackS: number;
  slack: Slack;
  state: MoveState;
  bytes: number;
}

export function slackOf(seconds: number): Slack {
  if (seconds < 0) return "late";
  if (seconds < TIGHT_S) return "tight";
  return seconds < FAIR_S ? "fair" : "ample";
}

/** A bar is never shorter than a packet's way: keeps columns finite. */
const SHORTEST_MS = 1;

export function barOf(record: MoveRecord, link: Link | undefined, now: Millis): Bar {
  const { state } = record;
  const needsMs = link ? (record.length * 8000) / link.rate : 0;
  let start = record.start_at / 1000;
  let end = start + needsMs;
  if (record.ended_at != null) {
    end = record.ended_at / 1000;
    start = Math.min(start, end - needsMs);
  } else if (state === "running") {
    start = Math.min(start, now);
    end = Math.max(end, now);
  }
  end = Math.max(end, start + SHORTEST_MS);
  const slackS = (record.due_at / 1000 - end) / 1000;
  return { record, start, end, slackS, slack: slackOf(slackS), state, bytes: record.length };
}

export interface View {
  from: Millis;
  to: Millis;
}

/** Rows that a lane has room for. */
export const ROWS = 5;
/** Narrower than this, pixels, a bar cannot be told from its neighbour. */
const TELLABLE_PX = 3;

export interface Rows {
  kind: "bars";
  rows: Bar[][];
}
export interface Column {
  from: Millis;
  to: Millis;
  moves: number;
  /** Bytes in this column by state and slack: `STACK` names the places. */
  bytes: Float64Array;
  total: number;
}
export interface Columns {
  kind: "columns";
  columns: Column[];
}

/** The order in which a column is stacked, from the ground up. */
export const STACK: readonly { state: MoveState; slack: Slack }[] = (
  ["done", "running", "planned"] as const
).flatMap((state) => SLACKS.map((slack) => ({ state, slack })));
const FAILED_PLACE = STACK.length;
const PLACES = STACK.length + 1;

const placeOf = (bar: Bar): number => {
  const base = { done: 0, running: 4, planned: 8, failed: -1, cancelled: -1 }[bar.state];
  return base < 0 ? FAILED_PLACE : base + SLACKS.indexOf(bar.slack);
};

/** How the bars in view are drawn. `bars` are in order of start. */
export function arrange(bars: readonly Bar[], view: View, widthPx: number): Rows | Columns {
  const seen = bars.filter((b) => b.end > view.from && b.start < view.to);
  const pxPerMs = widthPx / (view.to - view.from);
  const tellable = seen.filter((b) => (b.end - b.start) * pxPerMs >= TELLABLE_PX).length;
  if (seen.length <= 12 || tellable * 2 >= seen.length) {
    const rows = inRows(seen);
    if (rows) return { kind: "bars", rows };
  }
  return { kind: "columns", columns: inColumns(seen, view, widthPx) };
}

/** First fit; none if more than `ROWS` lie above each other. */
function inRows(bars: readonly Bar[]): Bar[][] | null {
  const rows: Bar[][] = [];
  for (const bar of bars) {
    const row = rows.find((r) => r[r.length - 1]!.end <= bar.start);
    if (row) row.push(bar);
    else if (rows.length < ROWS) rows.push([bar]);
    else return null;
  }
  return rows;
}

export const COLUMN_PX = 3;

/** Bytes of each bar, spread evenly over its time. Columns lie on a grid in time, so that they do not flicker. */
function inColumns(bars: readonly Bar[], view: View, widthPx: number): Column[] {
  const step = ((view.to - view.from) / widthPx) * COLUMN_PX;
  const first = Math.floor(view.from / step);
  const last = Math.ceil(view.to / step);
  const columns: Column[] = Array.from({ length: last - first }, (_, i) => ({
    from: (first + i) * step,
    to: (first + i + 1) * step,
    moves: 0,
    bytes: new Float64Array(PLACES),
    total: 0,
  }));
  for (const bar of bars) {
    const place = placeOf(bar);
    const a = Math.max(first, Math.floor(bar.start / step));
    const b = Math.min(last - 1, Math.floor(bar.end / step));
    for (let i = a; i <= b; i += 1) {
      const column = columns[i - first]!;
      const inside = Math.min(bar.end, column.to) - Math.max(bar.start, column.from);
      const part = (bar.bytes * Math.max(inside, 0)) / (bar.end - bar.start);
      column.bytes[place]! += part;
      column.total += part;
      column.moves += 1;
    }
  }
  return columns;
}

/** Bars under a point in time, nearest first: within `reachMs`, or lying over it. */
export function barsAt(bars: readonly Bar[], at: Millis, reachMs: number): Bar[] {
  const away = (b: Bar) => Math.max(b.start - at, at - b.end, 0);
  return bars.filter((b) => away(b) <= reachMs).sort((x, y) => away(x) - away(y) || x.start - y.start);
}
