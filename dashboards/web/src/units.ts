// Numbers as people in storage read them: decimal bytes, bits per second for rates, the unit always there. Pure.

const BYTES = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
const BITS = ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"];

/** Three significant digits, no exponent: 0.034, 1.20, 48.3, 512. */
function digits(value: number): string {
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 99.95) return Math.round(value).toString();
  if (size >= 9.995) return value.toFixed(1);
  if (size >= 0.9995) return value.toFixed(2);
  return value.toPrecision(2);
}

function scaled(value: number, units: string[]): string {
  let step = 0;
  let rest = value;
  while (Math.abs(rest) >= 999.5 && step < units.length - 1) {
    rest /= 1000;
    step += 1;
  }
  return `${step === 0 ? Math.round(rest) : digits(rest)} ${units[step]}`;
}

export const bytes = (value: number): string => scaled(value, BYTES);
export const rate = (bitsPerSecond: number): string => scaled(bitsPerSecond, BITS);
export const count = (value: number): string => Math.round(value).toLocaleString("en-US");

/** A share between 0 and 1. Never rounds to a certainty that it is not. */
export function share(value: number): string {
  const percent = value * 100;
  if (percent > 99.9 && percent < 100) return "> 99.9 %";
  if (percent > 0 && percent < 0.1) return "< 0.1 %";
  return `${percent === 0 || percent === 100 ? percent : percent.toFixed(1)} %`;
}

export function seconds(value: number): string {
  const size = Math.abs(value);
  if (size === 0) return "0 s";
  if (size < 0.9995) return `${digits(value * 1000)} ms`;
  if (size < 120) return `${digits(value)} s`;
  if (size < 7200) return `${digits(value / 60)} min`;
  if (size < 172_800) return `${digits(value / 3600)} h`;
  return `${digits(value / 86_400)} d`;
}

/** Signed, as a slack is told: "+12 s" is in time, "−3 s" is late. */
export const slack = (value: number): string => (value < 0 ? `−${seconds(-value)}` : `+${seconds(value)}`);
/** In the currency of the configuration, which names none. */
export const money = (value: number): string => (value === 0 ? "0" : value < 0.01 ? value.toPrecision(2) : value.toFixed(2));

const two = (n: number) => String(n).padStart(2, "0");

/** Clock time of the reader, microseconds in. With the day where it is not today's. */
export function clock(at: number, now = Date.now() * 1000): string {
  const date = new Date(at / 1000);
  const time = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  const sameDay = date.toDateString() === new Date(now / 1000).toDateString();
  return sameDay ? time : `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${time}`;
}

/** Clock time to the millisecond, for one move. */
export const clockFine = (at: number): string =>
  `${clock(at)}.${String(Math.floor(at / 1000) % 1000).padStart(3, "0")}`;

/** "in 12 s", "3 min ago", "now". */
export function relative(at: number, now: number): string {
  const delta = (at - now) / 1e6;
  if (Math.abs(delta) < 1) return "now";
  return delta > 0 ? `in ${seconds(delta)}` : `${seconds(-delta)} ago`;
}

/** A clock against another, microseconds ahead: within a second it is right, as far as the way between them can tell. */
export function clockError(aheadUs: number): string {
  if (Math.abs(aheadUs) < 1e6) return "right";
  return `${seconds(Math.abs(aheadUs) / 1e6)} ${aheadUs > 0 ? "ahead" : "behind"}`;
}

/** A job as people call it: its command, long paths cut to their ends. Where one is shown, its title is the whole. */
export const jobName = (job: { command?: string; workload: string }): string =>
  job.command ? job.command.replace(/(?:\/[^\s/]+)+(?=(?:\/[^\s/]+){2})/g, "…") : job.workload;

export const kinds = { bytes, rate, count, share, seconds, money } as const;
export type Kind = keyof typeof kinds;
