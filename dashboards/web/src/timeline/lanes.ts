// One lane for each link: its moves, and the reads that they are for. Pure.

import type { Forecast, Link, MoveRecord, MoveState } from "../api/types";
import { barOf, type Bar, type Millis } from "./bars";
import { ticksOf, type Tick } from "./reads";

export interface Lane {
  key: string;
  from: string;
  to: string;
  link: Link | undefined;
  bars: Bar[];
  ticks: Tick[];
  counts: Record<MoveState, number>;
  bytes: Record<MoveState, number>;
}

export const laneKey = (from: string, to: string): string => `${from}→${to}`;
const none = (): Record<MoveState, number> => ({ planned: 0, running: 0, done: 0, failed: 0, cancelled: 0 });

/**
 * Lanes of all links and of all moves whose link is gone, those with most bytes on their way first. A cancelled move
 * is counted and not drawn: nothing happened.
 */
export function lanesOf(
  links: readonly Link[],
  volumeAt: ReadonlyMap<string, string>,
  moves: Iterable<MoveRecord>,
  forecasts: readonly Forecast[],
  now: Millis,
): Lane[] {
  const lanes = new Map<string, Lane>();
  const lane = (from: string, to: string, link?: Link): Lane => {
    const key = laneKey(from, to);
    let found = lanes.get(key);
    if (!found) {
      found = { key, from, to, link, bars: [], ticks: [], counts: none(), bytes: none() };
      lanes.set(key, found);
    }
    return found;
  };
  for (const link of links) lane(link.from, link.to, link);
  for (const record of moves) {
    const { from, to, length } = record;
    const mine = lane(from, to);
    mine.counts[record.state] += 1;
    mine.bytes[record.state] += length;
    if (record.state !== "cancelled") mine.bars.push(barOf(record, mine.link, now));
  }
  const reads = groupBy(
    forecasts.filter((f) => volumeAt.has(f.volume) && volumeAt.get(f.volume) !== f.site),
    (f) => laneKey(volumeAt.get(f.volume)!, f.site),
  );
  for (const [key, mine] of reads) {
    const found = lanes.get(key);
    if (found) found.ticks = ticksOf(mine);
  }
  for (const each of lanes.values()) each.bars.sort((a, b) => a.start - b.start);
  const weight = (l: Lane) => l.bytes.running + l.bytes.planned + l.bytes.done + l.bytes.failed;
  return [...lanes.values()].sort(
    (a, b) => weight(b) - weight(a) || b.ticks.length - a.ticks.length || (a.key < b.key ? -1 : 1),
  );
}

function groupBy<T>(items: readonly T[], keyOf: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const key = keyOf(item);
    const group = groups.get(key);
    if (group) group.push(item);
    else groups.set(key, [item]);
  }
  return groups;
}
