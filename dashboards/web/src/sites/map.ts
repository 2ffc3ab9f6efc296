// Where sites stand on the map and how full their links are now. Pure.
//
// Sites that hold sources stand on the left, sites with caches on the right, those with both between: most bytes then
// flow one way across the picture.

import type { Link, MoveRecord, SiteView } from "../api/types";
import { barOf, type Millis } from "../timeline/bars";

export interface Placed {
  site: SiteView;
  x: number;
  y: number;
}
export interface Way {
  link: Link;
  key: string;
  from: Placed;
  to: Placed;
  /** Bits per second that the moves now running need to end when they should. */
  use: number;
  running: number;
  planned: number;
  plannedBytes: number;
  done: number;
  doneBytes: number;
  failed: number;
}

export const SITE_W = 190;
export const SITE_H = 74;
const GAP_Y = 34;

export interface SiteMap {
  placed: Placed[];
  ways: Way[];
  height: number;
}

export function mapOf(sites: readonly SiteView[], moves: readonly MoveRecord[], width: number, now: Millis): SiteMap {
  const role = (s: SiteView) => (s.volumes.length === 0 ? 2 : s.spec.cache ? 1 : 0);
  const columns = [0, 1, 2].map((r) => sites.filter((s) => role(s) === r)).filter((c) => c.length > 0);
  const tallest = Math.max(0, ...columns.map((c) => c.length));
  const height = tallest * (SITE_H + GAP_Y) + GAP_Y;
  const placed = columns.flatMap((column, i) => {
    const x = columns.length === 1 ? (width - SITE_W) / 2 : 8 + (i * (width - SITE_W - 16)) / (columns.length - 1);
    const top = (height - column.length * (SITE_H + GAP_Y) + GAP_Y) / 2;
    return column.map((site, j) => ({ site, x, y: top + j * (SITE_H + GAP_Y) }));
  });
  const at = new Map(placed.map((p) => [p.site.site, p]));
  const ways = new Map<string, Way>();
  for (const { links_out } of sites) {
    for (const link of links_out) {
      const from = at.get(link.from);
      const to = at.get(link.to);
      if (from && to) ways.set(`${link.from}→${link.to}`, { link, key: `${link.from}→${link.to}`, from, to, use: 0, running: 0, planned: 0, plannedBytes: 0, done: 0, doneBytes: 0, failed: 0 });
    }
  }
  for (const move of moves) {
    const way = ways.get(`${move.from}→${move.to}`);
    if (way) count(way, move, now);
  }
  return { placed, ways: [...ways.values()], height };
}

function count(way: Way, move: MoveRecord, now: Millis): void {
  if (move.state === "running") {
    const bar = barOf(move, way.link, now);
    way.running += 1;
    way.use += (move.length * 8000) / (bar.end - bar.start);
  } else if (move.state === "planned") {
    way.planned += 1;
    way.plannedBytes += move.length;
  } else if (move.state === "done") {
    way.done += 1;
    way.doneBytes += move.length;
  } else if (move.state === "failed") {
    way.failed += 1;
  }
}

/** A curve from one site's side to the other's; the way back bends to the other side, and sites in one column are
 * joined through the room beside it. */
export function curve(from: Placed, to: Placed): string {
  const same = Math.abs(from.x - to.x) < 1;
  const ahead = from.x < to.x;
  const lift = ahead || (same && from.y < to.y) ? -10 : 10;
  const y1 = from.y + SITE_H / 2 + lift;
  const y2 = to.y + SITE_H / 2 + lift;
  // The leftmost column has its free side on the right, the others on the left.
  const side = same && from.x <= 8 ? SITE_W : 0;
  const x1 = same ? from.x + side : ahead ? from.x + SITE_W : from.x;
  const x2 = same ? to.x + side : ahead ? to.x : to.x + SITE_W;
  const bend = same ? (side > 0 ? 70 : -70) : (x2 - x1) / 2;
  return `M${x1} ${y1}C${x1 + bend} ${y1} ${same ? x2 + bend : x2 - bend} ${y2} ${x2} ${y2}`;
}
