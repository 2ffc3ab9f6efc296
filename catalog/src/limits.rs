//! The bounds of everything that grows (promise K): what goes first when a bound is reached, and why that many.

/// Items of one page, whatever the caller asked for: 1,000 moves are about 500 KB of JSON.
pub const PAGE_ITEMS: usize = 1_000;

/// Entries of one directory. Ten times what file systems bear well; a listing above it is refused by name.
pub const LISTING_ENTRIES: usize = 10_000_000;

/// Manifests kept per file, newest first: one that is served, one that readers still hold, two for a slow reader.
pub const MANIFESTS_PER_FILE: usize = 4;

/// Chunks of one manifest, 36 bytes each in one blob of 250 MB: a file of 450 GB cut at 64 KiB.
pub const MANIFEST_CHUNKS: usize = 7_000_000;

/// Chunks that stand in several files, by place; those of the files told last. 64 GB of places in chunks of 64 KiB are 46 MB
/// here, and a tenth of a GB where plans are made.
pub const SHARED_CHUNKS: usize = 1 << 20;

/// Paths that carry tags of their own: tags stand on datasets, not on files, so that all fit in memory.
pub const TAGGED_PATHS: usize = 10_000;

/// Directories waiting to be learned; beyond it the coldest are forgotten and asked for again when somebody looks.
pub const LEARN_REQUESTS: usize = 1_000_000;

/// Batches remembered per node, oldest first to go. A batch older than all of these counts as seen.
pub const BATCHES_PER_NODE: usize = 100_000;

/// Lake files known by name, newest: two months of a batch every 5 s.
pub const LAKE_FILES: usize = 1_000_000;

/// Agents; the one silent longest goes first.
pub const AGENTS: usize = 10_000;

/// Runs kept, with their reads; those that began first go first. A year of a thousand runs a day.
pub const RUNS: usize = 400_000;

/// Profiles kept; the one not updated longest goes first.
pub const PROFILES: usize = 100_000;

/// Snapshots kept per model name: the newest, and what to fall back to.
pub const MODEL_SNAPSHOTS: usize = 3;

/// Bytes of one model snapshot.
pub const MODEL_BYTES: usize = 64 << 20;

/// Forecasts kept, the withdrawn and expired included; those made first go first.
pub const FORECASTS: usize = 10_000;

/// Plans kept; a plan every 50 ms gives the last minute, a plan a minute a day.
pub const PLANS: usize = 1_440;

/// Moves kept that have ended; those that changed first go first. Moves that are planned or running always stay.
pub const ENDED_MOVES: usize = 200_000;

/// Moves handed out at once. The next are asked for before these are carried out, and a short answer is there soon: the
/// longer one is, the more round trips TCP's slow start takes for it.
pub const MOVES_PER_ASSIGNMENT: usize = 1_000;

/// Refusals kept, newest: evidence for an auditor's quarter at 10,000 a day.
pub const REFUSALS: usize = 1_000_000;

/// Warm-ups kept that have ended (failed, cancelled); the oldest go first.
pub const ENDED_WARMUPS: usize = 100_000;

/// Warm-ups that are not ended; beyond it a new one is refused.
pub const ACTIVE_WARMUPS: usize = 200_000;

/// Tokens; beyond it a new one is refused.
pub const TOKENS: usize = 10_000;

/// Settings; beyond it a new one is refused.
pub const SETTINGS: usize = 1_000;

/// Events kept for listeners that come back: an hour at 30 a second.
pub const EVENTS: usize = 100_000;

/// Audit entries kept, newest.
pub const AUDIT_ENTRIES: usize = 1_000_000;
