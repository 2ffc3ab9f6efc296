// A control plane in a few lines, for the page's own tests: answers shaped by the OpenAPI, a plan that is carried out
// as time goes by, and faults on demand. The same tests run against a real one when FORETIDE_URL names it.

import { createHash, timingSafeEqual } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { believing } from "./issuer.mjs";

const DIST = new URL("../dist/", import.meta.url).pathname;
const POLICY = (await readFile(new URL("../../csp.txt", import.meta.url), "utf8")).trim();
const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".woff2": "font/woff2", ".txt": "text/plain" };
const EVENT_EVERY_MS = 500;
/** Each with those before it. */
const SCOPES = ["read", "warm", "admin"];

/** The same numbers each time: mulberry32. */
function random(seed) {
  let a = seed;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const LINKS = [
  { from: "storage", to: "gpu", rate: 1e9, rtt_ms: 150, cost_per_gb: 0.02 },
  { from: "storage", to: "gpu-west", rate: 10e9, rtt_ms: 68, cost_per_gb: 0 },
  { from: "gpu", to: "gpu-west", rate: 25e9, rtt_ms: 12, cost_per_gb: 0 },
];

/** Everything is placed around `t0`, microseconds. */
function world(t0, small) {
  const rand = random(7);
  const s = 1e6;
  const moves = [];
  const reads = [];
  const move = (id, over) => ({
    id, volume: "imagenet", path: `train/${id}.jpg`, offset: 0, length: 125_000, from: "storage", to: "gpu", start_at: t0, due_at: t0,
    keep_until: t0 + 900 * s, priority: "background", probability: 0.97, benefit_s: 0.151, cost: 0.0000025,
    cause: { kind: "forecast", forecast: "f-remaining", workload: "w-train" },
    reason: "epoch 2 of run r-1 has not read it yet; it reads every file once an epoch", plan: "p-17", planned: "planned",
    ended_at: null, wire_bytes: null, why: null, ...over,
  });
  let at = t0 - 3 * s;
  for (let i = 0; i < small; i += 1) {
    const length = 50_000 + Math.floor(rand() * 150_000);
    at += (length * 8) / 1e9 * s * 1.05;
    const due = at + 2.2 * s + (rand() - 0.35) * 4 * s;
    moves.push(move(`m-${i}`, { path: `train/n${String(i % 1000).padStart(8, "0")}_${i}.jpg`, length, start_at: Math.round(at), due_at: Math.round(due), takes: 0.16 * s + (length * 8) / 1e3, probability: 0.9 + rand() * 0.1 }));
    const p50 = due + rand() * 3 * s;
    reads.push({ path: `train/n${String(i % 1000).padStart(8, "0")}_${i}.jpg`, offset: 0, length, probability: 0.9 + rand() * 0.1, window: { p10: Math.round(p50 - 0.4 * s), p50: Math.round(p50), p90: Math.round(p50 + 1.5 * s + rand() * s) } });
  }
  const shards = [];
  for (let i = 0; i < 14; i += 1) {
    const start = t0 + (i * 9 - 48) * s;
    moves.push(move(`s-${i}`, {
      volume: "corpus", path: `tokens/shard-${String(i).padStart(5, "0")}.bin`, to: "gpu-west", length: 7_500_000_000, start_at: start, takes: 6.4 * s, due_at: start + [22, 12, 40, 6.9, 5, 60][i % 6] * s,
      priority: i % 2 ? "deadline" : "background", probability: i % 2 ? 1 : 0.88, benefit_s: 11.4, cost: 0, cause: i % 2 ? { kind: "warmup", warmup: "wu-1" } : { kind: "forecast", forecast: "f-recur", workload: "w-llm" },
      reason: i % 2 ? "asked for by warm-up nightly-eval, by its deadline" : "comes back every 6.0 h; the next run reads it first", fails: i === 2 ? "source answered: input/output error at byte 4,194,304" : null,
    }));
    shards.push({ path: `tokens/shard-${String(i).padStart(5, "0")}.bin`, offset: 0, length: 7_500_000_000, probability: 0.88 - i * 0.02, window: { p10: start + 10 * s, p50: start + 14 * s, p90: start + 26 * s } });
  }
  const forecast = (id, over) => ({ id, workload: "w-train", run: "r-1", site: "gpu", volume: "imagenet", made_at: t0 - 5 * s, expires_at: t0 + 3600 * s, forecaster: "remaining_set", reason: "", reads: [], ...over });
  return {
    moves,
    forecasts: [
      forecast("f-remaining", { reads, reason: `reads each of its ${small.toLocaleString("en-US")} files once an epoch; what is left of epoch 2 comes next, in any order` }),
      forecast("f-recur", { workload: "w-llm", run: null, site: "gpu-west", volume: "corpus", forecaster: "recurrence", reason: "began at 00:00, 06:00, 12:00 and 18:00 on each of the last 9 days", reads: shards }),
    ],
    profiles: [
      { workload: "w-train", command: "python train.py --data /data/imagenet --epoch #", updated_at: t0, runs: 4, accesses: 49_212, volume: "imagenet", root: "train", files_per_epoch: small, bytes_per_epoch: 501_223_411, epochs_per_run: 3, order: "shuffled", extent: { kind: "whole" }, bytes_per_second: 41_000_000, readers: 8, reuse: 0.998, templates: [{ volume: "imagenet", shape: "train/n#_#.jpg", files: small, bytes: 501_223_411 }], calendar: { starts: [1, 2, 3, 4].map((k) => t0 - k * 120 * s), period_s: 121.4, jitter_s: 2.1, confidence: 0.93, next_start: t0 + 74 * s } },
      { workload: "w-llm", command: "torchrun pretrain.py --shards corpus/tokens", updated_at: t0 - 90 * s, runs: 36, accesses: 1_204_118, volume: "corpus", root: "tokens", files_per_epoch: 512, bytes_per_epoch: 3.84e12, epochs_per_run: 1, order: "sequential", extent: { kind: "partial", share: 0.62 }, bytes_per_second: 1.1e9, readers: 4, reuse: 0.41, templates: [{ volume: "corpus", shape: "tokens/shard-#.bin", files: 512, bytes: 3.84e12 }], calendar: { starts: [t0 - 21_600 * s], period_s: 21_600, jitter_s: 41, confidence: 0.985, next_start: t0 + 2810 * s } },
      { workload: "w-note", command: "jupyter-kernel", updated_at: t0 - 900 * s, runs: 2, accesses: 118, volume: "imagenet", root: "", files_per_epoch: 37, bytes_per_epoch: 9_400_000, epochs_per_run: 1, order: "irregular", extent: { kind: "unknown" }, bytes_per_second: 120_000, readers: 1, reuse: 0.08, templates: [], calendar: { starts: [t0 - 5000 * s, t0 - 900 * s], period_s: null, jitter_s: 0, confidence: 0, next_start: null } },
    ],
  };
}

export async function startFixture({ port = 0, token = "fixture", scope = "admin", small = 4000, empty = false, far = 0, issuer = null } = {}) {
  const t0 = Date.now() * 1000;
  const made = empty ? { moves: [], forecasts: [], profiles: [] } : world(t0, small);
  const state = { faults: new Map(), prefetchOff: false, slowMs: 0, sse: new Set(), eventId: 0, frozenAt: null, takenBack: new Set(), released: [], asked: [], mode: "advise", approved: [], played: [], distrusts: false, shown: new Set() };
  // Time goes in steps, as reports come, and stands still on demand.
  const farSites = Array.from({ length: far }, (_, i) => `gpu-${String(i).padStart(3, "0")}`);
  const links = [...LINKS, ...farSites.map((to) => ({ from: "storage", to, rate: 10e9, rtt_ms: 90, cost_per_gb: 0.01 }))];
  const nowUs = () => (state.frozenAt ?? Math.floor(Date.now() / EVENT_EVERY_MS) * EVENT_EVERY_MS) * 1000;

  const view = ({ takes, fails, planned, ...m }) => {
    const end = m.start_at + takes;
    const now = nowUs();
    if (end <= now) return fails ? { ...m, state: "failed", ended_at: Math.round(end), why: fails } : { ...m, state: "done", ended_at: Math.round(end), wire_bytes: Math.round(m.length * 0.83) };
    return { ...m, state: m.start_at <= now ? "running" : "planned" };
  };
  let seen = { at: 0, moves: [] };
  const moves = () => {
    if (seen.at !== nowUs()) seen = { at: nowUs(), moves: made.moves.map(view) };
    return seen.moves;
  };
  const arrived = (to) => moves().filter((m) => m.to === to && m.state === "done").reduce((sum, m) => sum + m.length, 0);
  const site = (name, jurisdiction, capacity, base) => {
    const prefetched = capacity ? base + arrived(name) : 0;
    const read = Math.round(prefetched * 1.07);
    return {
      site: name, spec: { jurisdiction, labels: {}, cache: capacity ? { capacity_bytes: capacity } : null, accelerator_per_hour: capacity ? 2.5 : 0 },
      volumes: name === "storage" ? ["corpus", "imagenet"] : [], links_in: links.filter((l) => l.to === name), links_out: links.filter((l) => l.from === name),
      agents: [{ node: `${name}-01`, alive: true, seen_at: nowUs(), chunk_address: capacity ? null : "10.77.0.1:7272", volumes: [], probes: [capacity ? "mount" : "ebpf"], clock_ahead_us: capacity ? -4_200_000 : 12_000 }],
      resident_bytes: Math.round(prefetched * 0.94), capacity_bytes: capacity, reported_at: capacity && !empty ? nowUs() - 400_000 : null,
      prefetched_bytes: prefetched, wire_bytes: Math.round(prefetched * 0.83), wasted_bytes: Math.round(prefetched * 0.021), waste: prefetched ? Math.round(prefetched * 0.021) / prefetched : null,
      read_bytes: read, read_prefetched_bytes: Math.round(prefetched * 0.99), coverage: read ? Math.round(prefetched * 0.99) / read : null, hits: Math.floor(read / 130_000), late: 17, misses: 203, waited_s: 41.25,
    };
  };
  const sites = () => ({ mode: "enforce", items: [site("gpu", "us", 4e9, empty ? 0 : 912_345_678), site("gpu-west", "us", 200e9, empty ? 0 : 30e9), site("storage", "eu", 0, 0), ...farSites.map((name) => site(name, "us", 50e9, 1e9))] });
  const run = (id, workload, command, startS, endS, share) => {
    const now = nowUs();
    const wall = ((endS === null ? now : t0 + endS * 1e6) - (t0 + startS * 1e6)) / 1e6;
    const bytes = Math.round(wall * 41e6);
    const waited = wall * 8 * share;
    return {
      run: id, workload, command, site: "gpu", node: "gpu-01", started_at: t0 + startS * 1e6, ended_at: endS === null ? null : t0 + endS * 1e6,
      reads: Math.round(wall * 330), bytes, prefetched_bytes: Math.round(bytes * (1 - share * 4)), coverage: Math.round(bytes * (1 - share * 4)) / bytes, hits: Math.round(wall * 322), late: Math.round(wall * 5), misses: Math.round(wall * 330) - Math.round(wall * 322) - Math.round(wall * 5), waited_s: waited, stalled_share_at_most: Math.min(1, waited / wall),
    };
  };
  const runs = () => empty ? [] : [
    run("r-1", "w-train", "python train.py --data /data/imagenet --epoch 2", -38, null, 0.012 + 0.01 * Math.sin(nowUs() / 4e6)),
    run("r-0", "w-train", "python train.py --data /data/imagenet --epoch 1", -160, -51, 0.081),
    { ...run("r-n", "w-note", "jupyter-kernel", -900, -700, 0.05), reads: 0, bytes: 0, prefetched_bytes: 0, coverage: null, hits: 0, late: 0, misses: 0, waited_s: 0, stalled_share_at_most: null },
  ];
  const warmups = () => {
    if (empty) return [];
    const got = moves().filter((m) => m.cause.kind === "warmup" && m.state === "done").reduce((sum, m) => sum + m.length, 0);
    const base = { volume: "corpus", site: "gpu-west" };
    return [
      { id: "wu-1", request: { ...base, paths: ["tokens"], need_by: t0 + 55e6, label: "nightly-eval" }, asked_at: t0 - 70e6, state: "MOVING", moved_bytes: got, wire_bytes: Math.round(got * 0.83), deduplicated_bytes: got - Math.round(got * 0.83), plan: "p-17", failures: [{ why: "source answered: input/output error at byte 4,194,304", moves: 1, last_path: "tokens/shard-00002.bin", last_at: t0 - 24e6 }], required_bytes: 52_500_000_000, required_files: 7, resident_bytes: got, eta: t0 + 61e6, promised: { at: t0 - 60e6, eta: t0 + 60e6 }, from: "storage", eta_p50: t0 + 61e6, eta_p90: t0 + 95e6, slack_s: -6, cost: 1.05 },
      { id: "wu-2", request: { ...base, volume: "imagenet", site: "gpu", paths: ["val"], globs: ["val/**/*.jpg"], priority: 5, label: "validation set" }, asked_at: t0 - 900e6, state: "READY", required_bytes: 6_744_924_160, required_files: 50_000, resident_bytes: 6_744_924_160, eta: null, ready_at: t0 - 640e6, from: "storage", eta_p50: null, eta_p90: null, slack_s: null, cost: 0.13 },
      { id: "wu-3", request: { ...base, paths: ["patients/2026"], label: "" }, asked_at: t0 - 300e6, state: "FAILED", why: "rule phi-stays-in-eu forbids it at gpu-west", required_bytes: null, required_files: null, resident_bytes: 0, eta: null, from: "storage", eta_p50: null, eta_p90: null, slack_s: null, cost: null },
      { id: "wu-4", request: { ...base, volume: "imagenet", site: "gpu", paths: ["train"], label: "ablation-17" }, asked_at: t0 - 5e6, state: "QUEUED", why: "its files are being learned", required_bytes: null, required_files: null, resident_bytes: 0, eta: null, from: "storage", eta_p50: null, eta_p90: null, slack_s: null, cost: null },
    ].filter((w) => !state.takenBack.has(w.id));
  };
  const refusals = () => empty ? [] : [0, 1, 2].map((i) => ({ id: i + 1, volume: "corpus", path: `patients/2026/scan-${i}.dcm`, to: "gpu-west", rule: "phi-stays-in-eu", by: ["planner", "sender", "planner"][i], at: t0 - (300 - i * 40) * 1e6 }));
  const plan = () => ({ id: "p-17", made_at: t0 - 4e6, horizon: t0 + 3600e6, moves: made.moves.slice(0, 50).map(({ takes, fails, planned, plan: _, ended_at, wire_bytes, why, ...m }) => m), refused: refusals().map(({ id, ...r }) => r), left_out: empty ? [] : [{ volume: "corpus", path: "tokens", to: "gpu", files: 498, bytes: 3.735e12, why: "no room: the cache at gpu holds 4.00 GB" }] });

  const list = (items, query) => {
    const from = Number(query.get("cursor") ?? 0);
    const limit = Number(query.get("limit") ?? 100);
    return { items: items.slice(from, from + limit), next: from + limit < items.length ? from + limit : null };
  };
  const proposals = () => [
    { volume: "imagenet", path: "train", to: "gpu", files: 4005, bytes: 501_223_411, why: "the mode is advise: it would be moved" },
    { volume: "corpus", path: "tokens/shard-00014.bin", to: "gpu-west", files: 1, bytes: 7_500_000_000, why: "the mode is advise: it would be moved" },
  ];
  /** Less waiting on a faster link and in a larger cache, by a rule that the tests know. */
  const replay = ({ cache_bytes = 4e9, link_bits_per_s = 1e9, budget_bytes = Infinity }) => {
    const slow = 1e9 / link_bits_per_s;
    const way = (name, stall, hits, moved) => ({ name, finished: true, ended_s: 3600 + stall, stall_s: stall, reads: 12_015, hits, moved_bytes: moved, wasted_bytes: Math.round(moved * 0.03), link_bytes: 501_223_411 * 3, money: 0.03, peak_link: Math.min(1, 0.41 * slow), peak_cache_bytes: Math.min(cache_bytes, 501_223_411) });
    const moved = Math.min(490_000_000, budget_bytes);
    return { jobs: 8, files: 4005, bytes: 501_223_411, ways: [way("off", 1810 * slow, 0, 0), way("on demand", 640 * slow, 8010, 0), way("foretide", (21 + (490_000_000 - moved) / 1e6) * slow, 11_800, moved), way("oracle", 9 * slow, 11_990, 495_000_000)] };
  };
  const routes = {
    "/v1/sites": () => sites(),
    "/v1/moves": (q) => list(moves().filter((m) => m.due_at >= Number(q.get("since") ?? 0)), q),
    "/v1/forecasts": (q) => list(made.forecasts.map((f) => (q.get("reads") === "true" ? f : { ...f, reads: [] })), q),
    "/v1/profiles": (q) => list(made.profiles, q),
    "/v1/runs": (q) => list(runs(), q),
    "/v1/warmups": (q) => list(warmups(), q),
    "/v1/refusals": (q) => list(refusals(), q),
    "/v1/mode": () => ({ mode: state.mode, configured: "enforce" }),
    "/v1/me": () => ({ name: "fixture", scopes: SCOPES.slice(0, SCOPES.indexOf(scope) + 1) }),
    "/v1/plans/p-17/proposals": () => ({ items: state.mode === "enforce" || empty ? [] : proposals() }),
    "/v1/audit": (q) => list([{ id: 1, at: t0 - 9e9, who: "ops", what: "switch.put", detail: { prefetch_off: false } }], q),
    "/v1/switch": () => ({ prefetch_off: state.prefetchOff }),
    "/v1/policy": () => ({ mode: state.mode, default_effect: "allow", rules: empty ? [] : [{ name: "phi-stays-in-eu", effect: "deny", paths: "patients/**", outside_jurisdictions: ["eu"] }, { name: "archive-passes-through", effect: "transit", volume: "corpus", paths: "archive/**", sites: ["gpu"] }, { name: "corpus-to-west-until-summer", effect: "allow", volume: "corpus", sites: ["gpu-west"], until: t0 + 86_400e6 }] }),
    "/v1/policy/verdicts": (q) => ({ items: ["gpu", "gpu-west", "storage"].map((site) => {
      const denied = q.get("path").startsWith("patients/") && site !== "storage";
      const passes = q.get("path").startsWith("archive/") && site === "gpu";
      return { site, jurisdiction: site === "storage" ? "eu" : "us", effect: denied ? "deny" : passes ? "transit" : "allow", rule: denied ? "phi-stays-in-eu" : passes ? "archive-passes-through" : null };
    }) }),
  };

  const advice = (wanted) => {
    const at = (site, missing, readyS, cost, reason) => ({ site, possible: reason === "", rule: null, missing_bytes: missing, ready_p50_s: readyS, ready_p90_s: readyS / 0.7, cost, stall_now_s: readyS * 1.4, free_accelerators: null, price: cost + readyS * 2.5 / 3600, reason: reason || `${(missing / 1e9).toFixed(2)} GB to bring over 1 Gbit/s from storage, 0.00 GB promised to others before it` });
    const all = [at("gpu-west", 6_744_924_160, 56.2, 0.27, ""), at("gpu", 6_744_924_160, 74.9, 0.27, "the cache has room for 4000000000 of 6744924160 bytes")];
    const named = wanted.site ? [wanted.site] : (wanted.sites ?? []);
    return { files: 50_000, bytes: 6_744_924_160, complete: true, sites: named.length > 0 ? all.filter((s) => named.includes(s.site)) : all };
  };
  /** What is asked of it and changes something, but the switch. */
  function deed(response, method, path, wanted) {
    const taken = /^\/v1\/warmups\/(.+)$/.exec(path);
    if (method === "POST" && path === "/v1/advise") return send(response, advice(wanted));
    if (method === "POST" && path === "/v1/what-if") {
      state.played.push(wanted);
      if (wanted.span_s === 900) return problem(response, 422, "content refused", "the recording holds no access", "correct what is named and send it again");
      return send(response, replay(wanted));
    }
    if (scope === "read") return problem(response, 403, "token not for this", "this token has the scope read", "ask an admin for a token with the scope warm");
    if (method === "PUT" && path === "/v1/mode") {
      state.mode = wanted.mode ?? "enforce";
      return send(response, routes["/v1/mode"]());
    }
    if (method === "POST" && path === "/v1/plans/p-17/approve") {
      state.approved.push(wanted);
      const those = proposals().filter((l) => !wanted.path || l.path.startsWith(wanted.path));
      return send(response, { items: those.map((l, i) => ({ id: `wu-a${i}`, request: { volume: l.volume, site: l.to, paths: [l.path] }, asked_at: nowUs(), state: "QUEUED", resident_bytes: 0 })), next: null });
    }
    const released = /^\/v1\/warmups\/(.+)\/release$/.exec(path);
    if (method === "POST" && released) {
      state.released.push(released[1]);
      state.takenBack.add(released[1]);
      return send(response, {});
    }
    if (method === "DELETE" && taken) {
      state.takenBack.add(taken[1]);
      return send(response, {});
    }
    if (method !== "POST" || path !== "/v1/warmups") return problem(response, 405, "method not allowed");
    if (wanted.label === "phi") return problem(response, 403, "forbidden by a residency rule", "rule \"phi-stays-in-eu\" forbids corpus/ at site gpu-west", "choose a site that the rule allows");
    const { dry_run, site = "gpu-west", sites, ...rest } = wanted;
    const request = { ...rest, site };
    if (dry_run) return send(response, { request, advice: advice({ site }) });
    state.asked.push(request);
    return send(response, { id: "wu-9", request, asked_at: nowUs(), state: "QUEUED", required_bytes: null, required_files: null, resident_bytes: 0, eta: null });
  }

  const problem = (response, status, title, detail = "", remedy = "") => {
    response.writeHead(status, { "content-type": "application/problem+json" });
    response.end(JSON.stringify({ type: `/problems/${status}`, title, status, detail, remedy }));
  };
  const known = createHash("sha256").update(token).digest();
  const believes = issuer ? await believing(issuer) : () => null;
  /** Who shows a token: one of an issuer is worth something to those in the group `admins`. */
  const caller = (request) => {
    const given = /^Bearer (.+)$/.exec(request.headers.authorization ?? "")?.[1] ?? "";
    state.shown.add(given);
    if (timingSafeEqual(known, createHash("sha256").update(given).digest())) return "known";
    const said = state.distrusts ? null : believes(given, Date.now() / 1000);
    return said === null ? "unknown" : said.groups.includes("admins") ? "known" : "nobody";
  };
  const waysIn = async (response) => {
    if (!issuer) return send(response, { oidc: null });
    const told = await fetch(`${issuer.url}/.well-known/openid-configuration`).then((a) => a.json()).catch(() => null);
    if (!told) return problem(response, 503, "not available now", `the issuer ${issuer.url} does not tell its endpoints now`, "try again after the time in Retry-After");
    return send(response, {
      oidc: {
        issuer: told.issuer, name: "The Lab", client_id: issuer.clientId, scope: "openid offline_access", parameters: { audience: issuer.audience }, shown_token: issuer.clientId === issuer.audience ? "id" : "access",
        authorization_endpoint: told.authorization_endpoint, token_endpoint: told.token_endpoint, revocation_endpoint: told.revocation_endpoint, end_session_endpoint: told.end_session_endpoint,
        names_itself: true, leeway_s: 60, now: Date.now() * 1000,
      },
    });
  };
  const policy = issuer ? POLICY.replace("connect-src 'self'", `connect-src 'self' ${issuer.url}`) : POLICY;

  async function file(response, path) {
    const name = normalize(path === "/" ? "index.html" : path.slice(1));
    if (name.startsWith("..")) return problem(response, 404, "not found");
    const data = await readFile(join(DIST, name)).catch(() => null);
    if (!data) return problem(response, 404, "no such route");
    response.writeHead(200, { "content-type": TYPES[extname(name)] ?? "application/octet-stream", "content-security-policy": policy });
    response.end(data);
  }

  function events(response) {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.write(": hello\n\n");
    state.sse.add(response);
    response.on("close", () => state.sse.delete(response));
  }
  const tick = setInterval(() => {
    if (empty) return;
    state.eventId += 1;
    const kind = state.eventId % 4 === 0 ? "plan" : "site";
    for (const r of state.sse) r.write(`id: ${state.eventId}\nevent: ${kind}\ndata: {"id":${state.eventId},"at":${nowUs()},"kind":"${kind}","body":{}}\n\n`);
  }, EVENT_EVERY_MS);

  async function answer(request, response) {
    const url = new URL(request.url, "http://fixture");
    if (!url.pathname.startsWith("/v1/")) return file(response, url.pathname);
    if (state.slowMs) await new Promise((done) => setTimeout(done, state.slowMs));
    if (url.pathname === "/v1/sign-in") return waysIn(response);
    const who = caller(request);
    if (who === "unknown") return problem(response, 401, "token not accepted", "this token is not known, or no longer valid", "ask an admin for a new token");
    if (who === "nobody") return problem(response, 403, "token not for this", "this needs a token with the scope read; the token given has none", "ask an admin for a token with the scope read");
    const fault = state.faults.get(url.pathname);
    if (fault) return problem(response, fault, fault === 403 ? "token not for this" : "the catalog failed", fault === 403 ? "" : "the control plane could not read or write its records", fault === 403 ? "ask an admin for a token with the scope read" : "try again; if it stays, the log of `foretide serve` says why");
    if (url.pathname === "/v1/events") return events(response);
    if (url.pathname === "/v1/plans/latest" && empty) return problem(response, 404, "not found", "there is no plan latest");
    if (url.pathname === "/v1/plans/latest") return send(response, plan());
    if (url.pathname === "/v1/switch" && request.method === "PUT") {
      if (scope !== "admin") return problem(response, 403, "token not for this", "this token has the scope read", "ask an admin for a token with the scope admin");
      let body = "";
      for await (const part of request) body += part;
      state.prefetchOff = JSON.parse(body).prefetch_off;
      return send(response, { prefetch_off: state.prefetchOff });
    }
    if (request.method !== "GET") {
      let body = "";
      for await (const part of request) body += part;
      return deed(response, request.method, url.pathname, body ? JSON.parse(body) : {});
    }
    const route = routes[url.pathname];
    return route ? send(response, route(url.searchParams)) : problem(response, 404, "no such route");
  }
  const send = (response, body) => {
    response.writeHead(200, { "content-type": "application/json" });
    response.end(JSON.stringify(body));
  };

  const server = createServer((request, response) => void answer(request, response));
  await new Promise((done) => server.listen(port, "127.0.0.1", done));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    port: server.address().port,
    token,
    state,
    stop: () =>
      new Promise((done) => {
        clearInterval(tick);
        server.close(() => done());
        server.closeAllConnections();
      }),
  };
}

if (process.argv[1] === new URL(import.meta.url).pathname) {
  const fixture = await startFixture({ port: Number(process.env.PORT ?? 0), small: Number(process.env.SMALL ?? 4000) });
  console.log(`${fixture.url}/#token=${fixture.token}`);
}
