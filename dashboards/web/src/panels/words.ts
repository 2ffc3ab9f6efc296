// What was learned of a workload, in sentences. Pure.

import type { Forecast, Profile } from "../api/types";
import { bytes, count, seconds, share } from "../units";

const ORDER: Record<Profile["order"], string> = {
  unknown: "in an order not yet known",
  sequential: "in the same order each time",
  shuffled: "in a fresh random order each epoch",
  irregular: "in no regular order",
};

function extent(profile: Profile): string {
  if (profile.extent.kind === "whole") return "each from start to end";
  if (profile.extent.kind === "partial") return `on average ${share(profile.extent.share)} of each`;
  return "";
}

export const place = (volume: string | null | undefined, root: string): string => (volume ? `${volume}:${root || "/"}` : root || "/");

const some = (n: number, what: string): string => {
  const rounded = Number(n.toFixed(1));
  return `${rounded} ${what}${rounded === 1 ? "" : "s"}`;
};

/** What it reads: after the count of files and bytes, which stand as numbers of their own. */
export function habit(profile: Profile): string {
  const order = profile.drawn ? `in an order ${profile.drawn}` : ORDER[profile.order];
  const parts = [extent(profile), order].filter(Boolean);
  const epochs = profile.epochs_per_run > 0 ? `${some(profile.epochs_per_run, "epoch")} a run` : "";
  const readers = profile.readers > 1 ? `${some(profile.readers, "reader")} side by side` : "";
  return [parts.join(", "), epochs, readers].filter(Boolean).join("; ");
}

/** When it comes back, and how surely. */
export function returning(profile: Profile): string {
  const { period_s, jitter_s, confidence, starts } = profile.calendar;
  if (period_s == null) return starts.length < 3 ? `Seen ${count(starts.length)} ${starts.length === 1 ? "time" : "times"}: too few to tell when it comes back.` : "Comes back at no regular interval.";
  return `Comes back every ${seconds(period_s)} ± ${seconds(jitter_s)}, confidence ${share(confidence)}.`;
}

/** The forecasters that speak of a workload now, each with its own words and how sure it is on average. */
export function said(workload: string, forecasts: readonly Forecast[]): { id: string; forecaster: string; reason: string; sure: number | null; amount: string }[] {
  return forecasts
    .filter((f) => f.workload === workload)
    .map((f) => {
      const reads = f.reads ?? [];
      const total = reads.reduce((sum, r) => sum + r.length, 0);
      return {
        id: f.id,
        forecaster: f.forecaster,
        reason: f.reason,
        sure: total > 0 ? reads.reduce((sum, r) => sum + r.probability * r.length, 0) / total : null,
        amount: reads.length > 0 ? `${count(reads.length)} reads, ${bytes(total)}` : "",
      };
    });
}
