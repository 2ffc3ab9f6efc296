// Paints one lane on its canvas. Takes what was arranged and decides nothing but pixels.
//
//   0 ───────────────  the link's rate (dashed), bars or columns standing on BASE
//   BASE ────────────  ground line
//   BASE..HEIGHT       predicted reads: p50 as a tick, a line to p90

import { COLUMN_PX, ROWS, SLACKS, STACK, type Bar, type Columns, type Rows, type Slack, type View } from "./bars";
import { TICK_ROWS, type TickColumns, type TickRows } from "./reads";

export const LANE_HEIGHT_PX = 96;
const BASE_PX = 66;
const TOP_PX = 6;
/** The link's full rate stands at this height over the ground, so that there is room to show what exceeds it. */
const RATE_PX = 50;
const ROW_PX = (BASE_PX - TOP_PX) / ROWS;
const READS_TOP_PX = BASE_PX + 5;
const READS_PX = LANE_HEIGHT_PX - READS_TOP_PX - 3;

export interface Palette {
  slack: Record<Slack, string>;
  failed: string;
  ground: string;
  rate: string;
  ink: string;
  read: string;
  readFar: string;
  now: string;
  past: string;
}

export function paletteOf(element: Element): Palette {
  const style = getComputedStyle(element);
  const of = (name: string) => style.getPropertyValue(`--${name}`).trim();
  return {
    slack: Object.fromEntries(SLACKS.map((s) => [s, of(`slack-${s}`)])) as Record<Slack, string>,
    failed: of("failed"),
    ground: of("line"),
    rate: of("ink-3"),
    ink: of("ink"),
    read: of("read"),
    readFar: of("read-far"),
    now: of("now"),
    past: of("past"),
  };
}

export interface Scene {
  view: View;
  now: number;
  moves: Rows | Columns;
  reads: TickRows | TickColumns;
  /** Bits per second; none if the link is unknown. */
  rate: number | undefined;
  selected: string | null;
}

/** Opacity by state: what is done is solid, what is to come is light. */
const FILL = { done: 1, running: 0.62, planned: 0.26 } as const;

export function paint(ctx: CanvasRenderingContext2D, width: number, scene: Scene, palette: Palette): void {
  const { view } = scene;
  const x = (at: number) => ((at - view.from) / (view.to - view.from)) * width;
  ctx.clearRect(0, 0, width, LANE_HEIGHT_PX);
  ctx.fillStyle = palette.past;
  ctx.fillRect(0, 0, Math.max(0, x(scene.now)), LANE_HEIGHT_PX);
  if (scene.moves.kind === "bars") paintRows(ctx, scene.moves, x, scene.selected, palette);
  else paintColumns(ctx, scene.moves, x, scene.rate, palette);
  ctx.fillStyle = palette.ground;
  ctx.fillRect(0, BASE_PX, width, 1);
  if (scene.reads.kind === "ticks") paintTicks(ctx, scene.reads, x, palette);
  else paintTickColumns(ctx, scene.reads, x, palette);
  ctx.fillStyle = palette.now;
  ctx.fillRect(Math.round(x(scene.now)) - 0.5, 0, 1.5, LANE_HEIGHT_PX);
}

type X = (at: number) => number;

function paintRows(ctx: CanvasRenderingContext2D, { rows }: Rows, x: X, selected: string | null, palette: Palette): void {
  const height = rows.length === 1 ? 22 : rows.length === 2 ? 18 : ROW_PX - 2;
  const step = rows.length <= 2 ? height + 3 : ROW_PX;
  rows.forEach((row, i) => {
    const top = BASE_PX - (i + 1) * step;
    for (const bar of row) paintBar(ctx, bar, x(bar.start), top, Math.max(2, x(bar.end) - x(bar.start) - 0.5), height, bar.record.id === selected, palette);
  });
}

function paintBar(
  ctx: CanvasRenderingContext2D,
  bar: Bar,
  left: number,
  top: number,
  width: number,
  height: number,
  selected: boolean,
  palette: Palette,
): void {
  const failed = bar.state === "failed";
  const color = failed ? palette.failed : palette.slack[bar.slack];
  ctx.fillStyle = color;
  ctx.globalAlpha = failed ? 0.18 : FILL[bar.state as keyof typeof FILL];
  ctx.fillRect(left, top, width, height);
  ctx.globalAlpha = 1;
  ctx.strokeStyle = color;
  ctx.lineWidth = 1;
  if (bar.state !== "done" && width > 3) ctx.strokeRect(left + 0.5, top + 0.5, width - 1, height - 1);
  if (failed) hatch(ctx, left, top, width, height, color);
  if (selected) {
    ctx.strokeStyle = palette.ink;
    ctx.lineWidth = 2;
    ctx.strokeRect(left - 2, top - 2, width + 4, height + 4);
  }
}

function hatch(ctx: CanvasRenderingContext2D, left: number, top: number, width: number, height: number, color: string): void {
  ctx.save();
  ctx.beginPath();
  ctx.rect(left, top, width, height);
  ctx.clip();
  ctx.beginPath();
  for (let at = left - height; at < left + width; at += 5) {
    ctx.moveTo(at, top + height);
    ctx.lineTo(at + height, top);
  }
  ctx.strokeStyle = color;
  ctx.lineWidth = 1.25;
  ctx.stroke();
  ctx.restore();
}

function paintColumns(ctx: CanvasRenderingContext2D, { columns }: Columns, x: X, rate: number | undefined, palette: Palette): void {
  const most = columns.reduce((m, c) => Math.max(m, (c.total * 8000) / (c.to - c.from)), 1);
  const pxPerBit = RATE_PX / (rate ?? most);
  for (const column of columns) {
    if (column.moves === 0) continue;
    const scale = (8000 / (column.to - column.from)) * pxPerBit;
    // What stands too high to draw is squeezed into the lane, so that the colours keep their shares.
    const squeeze = Math.min(1, (BASE_PX - TOP_PX) / Math.max(column.total * scale, 1));
    let y = BASE_PX;
    const left = x(column.from);
    const slab = (bytes: number, color: string, alpha: number) => {
      const height = bytes * scale * squeeze;
      if (height <= 0) return;
      y -= height;
      ctx.globalAlpha = alpha;
      ctx.fillStyle = color;
      ctx.fillRect(left, y, COLUMN_PX - 0.4, height);
    };
    STACK.forEach(({ state, slack }, i) => slab(column.bytes[i]!, palette.slack[slack], FILL[state as keyof typeof FILL]));
    slab(column.bytes[STACK.length]!, palette.failed, 1);
    ctx.globalAlpha = 1;
  }
  if (rate === undefined) return;
  ctx.strokeStyle = palette.rate;
  ctx.lineWidth = 1;
  ctx.setLineDash([2, 4]);
  ctx.beginPath();
  ctx.moveTo(0, BASE_PX - RATE_PX - 0.5);
  ctx.lineTo(ctx.canvas.clientWidth, BASE_PX - RATE_PX - 0.5);
  ctx.stroke();
  ctx.setLineDash([]);
}

function paintTicks(ctx: CanvasRenderingContext2D, { rows }: TickRows, x: X, palette: Palette): void {
  const step = READS_PX / TICK_ROWS;
  rows.forEach((row, i) => {
    const top = READS_TOP_PX + i * step;
    for (const tick of row) {
      const left = x(tick.p50);
      ctx.globalAlpha = 0.35 + 0.65 * tick.read.probability;
      ctx.fillStyle = palette.readFar;
      ctx.fillRect(left, top + step / 2 - 1, Math.max(1, x(tick.p90) - left), 1.5);
      ctx.fillStyle = palette.read;
      ctx.fillRect(left - 0.75, top, 1.5, step - 1);
    }
  });
  ctx.globalAlpha = 1;
}

function paintTickColumns(ctx: CanvasRenderingContext2D, reads: TickColumns, x: X, palette: Palette): void {
  const wide = x(reads.fromMs + reads.stepMs) - x(reads.fromMs);
  // By the square root, so that a trickle beside a flood can still be seen; heights are compared, not read off.
  const high = (bytes: number) => (bytes === 0 ? 0 : Math.max(1.5, Math.sqrt(bytes / reads.most) * READS_PX));
  reads.p50.forEach((bytes, i) => {
    ctx.fillStyle = palette.read;
    ctx.fillRect(x(reads.fromMs + i * reads.stepMs), READS_TOP_PX, wide - 0.4, high(bytes));
  });
  ctx.strokeStyle = palette.readFar;
  ctx.lineWidth = 1.5;
  ctx.beginPath();
  let drawing = false;
  reads.p90.forEach((bytes, i) => {
    const left = x(reads.fromMs + i * reads.stepMs);
    const y = READS_TOP_PX + high(bytes);
    if (bytes === 0 && !drawing) return;
    if (!drawing) ctx.moveTo(left, READS_TOP_PX);
    ctx.lineTo(left, y);
    ctx.lineTo(left + wide, y);
    drawing = bytes > 0;
  });
  ctx.stroke();
}
