// The scales of the sliders: steps of equal ratio, so that a megabyte and a petabyte are on one of them. Pure.

/** Steps of a slider, the last one included. */
export const TOP = 60;
export const NO_LIMIT = Infinity;

/** How long is played, seconds, and in words. */
export const spans: readonly (readonly [number, string])[] = [
  [900, "the last 15 minutes"],
  [3600, "the last hour"],
  [21_600, "the last 6 hours"],
  [86_400, "the last day"],
  [604_800, "the last 7 days"],
];

/** 10 MB to 10 PB, two significant digits. */
export const cacheAt = (step: number): number => rounded(1e7 * 10 ** ((9 * step) / TOP));
/** 10 Mbit/s to 1 Tbit/s, two significant digits. */
export const rateAt = (step: number): number => rounded(1e7 * 10 ** ((5 * step) / TOP));

function rounded(value: number): number {
  const unit = 10 ** Math.floor(Math.log10(value) - 1);
  return Math.round(value / unit) * unit;
}

/** The step whose value is nearest, by ratio. */
export function stepOf(scale: (step: number) => number, value: number): number {
  let best = 0;
  for (let step = 1; step <= TOP; step += 1) if (Math.abs(Math.log(scale(step) / value)) < Math.abs(Math.log(scale(best) / value))) best = step;
  return best;
}
