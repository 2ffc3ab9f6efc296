// The API's values under the names that the page uses.
export type Timestamp = number; // microseconds since 1970

export interface Page<T> { items: T[]; next?: number | string | null }
export type MoveState = "planned" | "running" | "done" | "failed" | "cancelled";
export type MoveCause =
  | { kind: "forecast"; forecast: string; workload: string }
  | { kind: "warmup"; warmup: string };
export interface Move {
  id: string; volume: string; path: string; offset: number; length: number; from: string; to: string;
  start_at: Timestamp; due_at: Timestamp; keep_until: Timestamp; priority: "demand" | "deadline" | "background";
  probability: number; benefit_s: number; cost: number; cause: MoveCause; reason: string;
}
export interface MoveRecord extends Move {
  state: MoveState; plan: string; ended_at?: Timestamp | null; wire_bytes?: number | null; why?: string | null;
}
export interface TimeWindow { p10: Timestamp; p50: Timestamp; p90: Timestamp }
export interface PredictedRead { path: string; offset: number; length: number; probability: number; window: TimeWindow }
export interface Forecast {
  id: string; workload: string; run?: string | null; site: string; volume: string; made_at: Timestamp;
  expires_at: Timestamp; forecaster: string; reason: string; reads: PredictedRead[];
}
export interface Site {
  jurisdiction: string; labels: Record<string, string>; cache?: { capacity_bytes: number } | null; accelerator_per_hour: number;
}
export interface Link { from: string; to: string; rate: number; rtt_ms: number; cost_per_gb: number }
export interface Agent {
  node: string; alive: boolean; seen_at: Timestamp; chunk_address?: string | null; volumes: string[]; probes: string[];
}
export interface SiteView {
  site: string; spec: Site; volumes: string[]; links_in: Link[]; links_out: Link[]; agents: Agent[];
  resident_bytes: number; capacity_bytes: number; reported_at?: Timestamp | null;
  prefetched_bytes: number; wire_bytes: number; wasted_bytes: number; waste?: number | null; read_bytes: number;
  read_prefetched_bytes: number; coverage?: number | null; hits: number; late: number; misses: number; waited_s: number;
}
export interface Sites { mode: "advise" | "shadow" | "enforce"; items: SiteView[] }
export interface Calendar {
  starts: Timestamp[]; period_s?: number | null; jitter_s: number; confidence: number; next_start?: Timestamp | null;
}
export interface Profile {
  workload: string; command: string; updated_at: Timestamp; runs: number; accesses: number; volume?: string | null;
  root: string; files_per_epoch: number; bytes_per_epoch: number; epochs_per_run: number;
  order: "unknown" | "sequential" | "shuffled" | "irregular";
  extent: { kind: "unknown" } | { kind: "whole" } | { kind: "partial"; share: number };
  bytes_per_second: number; readers: number; reuse: number;
  templates: { volume: string; shape: string; files: number; bytes: number }[];
  calendar: Calendar;
}
export interface Run {
  run: string; workload: string; command: string; site: string; node: string; started_at: Timestamp; ended_at?: Timestamp | null;
  reads?: RunReads | null;
}
export interface RunReads {
  reads: number; bytes: number; prefetched_bytes: number; coverage?: number | null; hits: number; late: number;
  misses: number; waited_s: number; stalled_share_at_most?: number | null;
}
export type WarmupState = "QUEUED" | "PLANNED" | "MOVING" | "READY" | "DEGRADED" | "FAILED" | "CANCELLED";
export interface Warmup {
  id: string;
  request: { volume: string; paths: string[]; site: string; need_by?: Timestamp | null; pin_until?: Timestamp | null; label?: string };
  asked_at: Timestamp; state: WarmupState; why?: string | null; required_bytes?: number | null;
  required_files?: number | null; resident_bytes: number; eta?: Timestamp | null; ready_at?: Timestamp | null;
}
export interface Refusal { id?: number; volume: string; path: string; to: string; rule: string; by: string; at: Timestamp }
export interface Plan { id: string; made_at: Timestamp; horizon: Timestamp; moves: Move[]; refused: Refusal[]; left_out: LeftOut[] }
export interface LeftOut { volume: string; path: string; to: string; files: number; bytes: number; why: string }
export interface Switch { prefetch_off: boolean }
