// Refusals added up and as files. Pure.

import type { Policy, Refusal } from "../api/types";

export interface RuleSum {
  rule: string;
  refusals: number;
  sites: string[];
  by: string[];
  last: number;
}

export function byRule(refusals: readonly Refusal[]): RuleSum[] {
  const sums = new Map<string, RuleSum>();
  for (const { rule, to, by, at } of refusals) {
    const sum = sums.get(rule) ?? { rule, refusals: 0, sites: [], by: [], last: 0 };
    sums.set(rule, sum);
    sum.refusals += 1;
    sum.last = Math.max(sum.last, at);
    if (!sum.sites.includes(to)) sum.sites.push(to);
    if (!sum.by.includes(by)) sum.by.push(by);
  }
  return [...sums.values()].sort((a, b) => b.refusals - a.refusals);
}

/** RFC 4180; a cell that a spreadsheet would take for a formula is made text. */
function cell(text: string): string {
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

export function csvOf(refusals: readonly Refusal[]): string {
  const rows = refusals.map((r) => [new Date(r.at / 1000).toISOString(), r.rule, r.volume, r.path, r.to, r.by]);
  return [["at", "rule", "volume", "path", "to", "refused_by"], ...rows].map((row) => `${row.map(cell).join(",")}\r\n`).join("");
}

/** Who did what, as the audit log has it. */
export interface AuditEntry {
  id: number;
  at: number;
  who: string;
  what: string;
  detail: unknown;
}

/** All that an auditor asks for, in one file: the rules in force, each time that one was upheld, and who changed what. */
export function evidenceOf(host: string, at: number, policy: Policy | null, refusals: readonly Refusal[], audit: readonly AuditEntry[] | null): string {
  const moment = (us: number) => new Date(us / 1000).toISOString();
  const evidence = {
    control_plane: host,
    taken_at: moment(at),
    mode: policy?.mode ?? null,
    default_effect: policy?.default_effect ?? null,
    rules: policy?.rules.map((rule) => ({ ...rule, until: rule.until == null ? null : moment(rule.until) })) ?? null,
    refusals: refusals.map((r) => ({ ...r, at: moment(r.at) })),
    audit: audit?.map((entry) => ({ ...entry, at: moment(entry.at) })) ?? "not told: it needs the scope admin",
  };
  return `${JSON.stringify(evidence, null, 2)}\n`;
}
