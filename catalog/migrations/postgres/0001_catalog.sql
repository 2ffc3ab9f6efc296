-- Times are microseconds since 1970 UTC. Counts and sizes are signed 64 bit. States are small numbers, see src/sql/words.rs.

-- Streams that listeners follow by number. A writer takes its numbers from here inside its transaction, so that a
-- reader never sees a later number before an earlier one.
CREATE TABLE counters (name TEXT COLLATE "C" PRIMARY KEY, value BIGINT NOT NULL);

-- A directory is known by name when its parent was listed (seen_at null), and learned when it was listed itself.
-- files and bytes count the regular files directly in it, so that totals of a subtree need no walk over files; their
-- smallest and largest size and oldest and newest change let a search pass a directory by (null: no files).
CREATE TABLE directories (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    volume TEXT COLLATE "C" NOT NULL,
    path BYTEA NOT NULL,
    seen_at BIGINT,
    files BIGINT NOT NULL DEFAULT 0,
    bytes BIGINT NOT NULL DEFAULT 0,
    smallest BIGINT,
    largest BIGINT,
    oldest BIGINT,
    newest BIGINT
);
CREATE UNIQUE INDEX directories_by_path ON directories (volume, path);
CREATE INDEX directories_unlearned ON directories (volume, path) WHERE seen_at IS NULL;

CREATE TABLE files (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    directory BIGINT NOT NULL,
    name BYTEA NOT NULL,
    kind BIGINT NOT NULL,
    size BIGINT NOT NULL,
    modified_at BIGINT NOT NULL,
    mode BIGINT NOT NULL,
    uid BIGINT NOT NULL,
    gid BIGINT NOT NULL,
    links BIGINT NOT NULL,
    version TEXT COLLATE "C" NOT NULL,
    target TEXT COLLATE "C"
);
CREATE UNIQUE INDEX files_by_name ON files (directory, name);

CREATE TABLE manifests (
    volume TEXT COLLATE "C" NOT NULL,
    path BYTEA NOT NULL,
    version TEXT COLLATE "C" NOT NULL,
    number BIGINT NOT NULL,
    id BYTEA NOT NULL,
    size BIGINT NOT NULL,
    chunks BYTEA NOT NULL,
    PRIMARY KEY (volume, path, version)
);

CREATE TABLE tags (volume TEXT COLLATE "C" NOT NULL, path BYTEA NOT NULL, tags TEXT COLLATE "C" NOT NULL, PRIMARY KEY (volume, path));

-- Directories that somebody wants to know: a work queue for the agents at the source.
CREATE TABLE wishes (
    volume TEXT COLLATE "C" NOT NULL,
    path BYTEA NOT NULL,
    recursive BIGINT NOT NULL,
    heat DOUBLE PRECISION NOT NULL,
    at BIGINT NOT NULL,
    taken_until BIGINT,
    taken_by TEXT COLLATE "C",
    PRIMARY KEY (volume, path)
);
CREATE INDEX wishes_by_heat ON wishes (heat DESC, at, volume, path);

CREATE TABLE agents (node TEXT COLLATE "C" PRIMARY KEY, seen_at BIGINT NOT NULL, body TEXT COLLATE "C" NOT NULL);

-- What came from each node, of each kind: 0 access batches, 1 outcome batches.
CREATE TABLE accounts (
    node TEXT COLLATE "C" NOT NULL,
    kind BIGINT NOT NULL,
    first BIGINT NOT NULL,
    last BIGINT NOT NULL,
    floor BIGINT NOT NULL,
    batches BIGINT NOT NULL,
    accesses BIGINT NOT NULL,
    dropped_events BIGINT NOT NULL,
    unresolved BIGINT NOT NULL,
    summarised BIGINT NOT NULL,
    PRIMARY KEY (node, kind)
);
CREATE TABLE sequences (node TEXT COLLATE "C" NOT NULL, kind BIGINT NOT NULL, sequence BIGINT NOT NULL, PRIMARY KEY (node, kind, sequence));
CREATE TABLE lake_files (number BIGINT PRIMARY KEY, at BIGINT NOT NULL, name TEXT COLLATE "C" NOT NULL);

CREATE TABLE runs (
    run TEXT COLLATE "C" PRIMARY KEY,
    number BIGINT NOT NULL UNIQUE,
    workload TEXT COLLATE "C" NOT NULL,
    site TEXT COLLATE "C" NOT NULL,
    at BIGINT NOT NULL,
    command TEXT COLLATE "C" NOT NULL,
    node TEXT COLLATE "C" NOT NULL
);
CREATE INDEX runs_by_workload ON runs (workload, number);
-- Apart, because an end can come before its start.
CREATE TABLE run_ends (run TEXT COLLATE "C" PRIMARY KEY, number BIGINT NOT NULL UNIQUE, at BIGINT NOT NULL);

CREATE TABLE profiles (workload TEXT COLLATE "C" PRIMARY KEY, number BIGINT NOT NULL UNIQUE, body TEXT COLLATE "C" NOT NULL);
CREATE TABLE models (
    name TEXT COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    at BIGINT NOT NULL,
    digest BYTEA NOT NULL,
    bytes BYTEA NOT NULL,
    PRIMARY KEY (name, version)
);
CREATE TABLE forecasts (
    id TEXT COLLATE "C" PRIMARY KEY,
    number BIGINT NOT NULL UNIQUE,
    workload TEXT COLLATE "C" NOT NULL,
    site TEXT COLLATE "C" NOT NULL,
    expires_at BIGINT NOT NULL,
    withdrawn_at BIGINT,
    head TEXT COLLATE "C" NOT NULL,
    reads BYTEA NOT NULL
);

CREATE TABLE plans (
    id TEXT COLLATE "C" PRIMARY KEY,
    number BIGINT NOT NULL UNIQUE,
    made_at BIGINT NOT NULL,
    horizon BIGINT NOT NULL,
    moves BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    refused BIGINT NOT NULL,
    left_out BIGINT NOT NULL,
    body BYTEA NOT NULL
);
-- change numbers what an agent must be told; number is the order of first appearance.
CREATE TABLE moves (
    id TEXT COLLATE "C" PRIMARY KEY,
    number BIGINT NOT NULL UNIQUE,
    change BIGINT NOT NULL,
    state BIGINT NOT NULL,
    plan TEXT COLLATE "C" NOT NULL,
    from_site TEXT COLLATE "C" NOT NULL,
    to_site TEXT COLLATE "C" NOT NULL,
    volume TEXT COLLATE "C" NOT NULL,
    start_at BIGINT NOT NULL,
    due_at BIGINT NOT NULL,
    warmup TEXT COLLATE "C",
    workload TEXT COLLATE "C",
    ended_at BIGINT,
    end_recorded_at BIGINT NOT NULL DEFAULT 0,
    wire_bytes BIGINT,
    why TEXT COLLATE "C",
    digest BYTEA NOT NULL,
    body TEXT COLLATE "C" NOT NULL
);
CREATE INDEX moves_by_change ON moves (to_site, change);
CREATE INDEX moves_by_state ON moves (state, end_recorded_at, number);

CREATE TABLE stores (
    node TEXT COLLATE "C" PRIMARY KEY,
    site TEXT COLLATE "C" NOT NULL,
    sequence BIGINT NOT NULL,
    resident_bytes BIGINT NOT NULL,
    capacity_bytes BIGINT NOT NULL,
    at BIGINT NOT NULL
);
CREATE TABLE sites (
    site TEXT COLLATE "C" PRIMARY KEY,
    prefetched_bytes BIGINT NOT NULL,
    wire_bytes BIGINT NOT NULL,
    wasted_bytes BIGINT NOT NULL,
    read_bytes BIGINT NOT NULL,
    read_prefetched_bytes BIGINT NOT NULL,
    hits BIGINT NOT NULL,
    late BIGINT NOT NULL,
    misses BIGINT NOT NULL,
    waited_us BIGINT NOT NULL
);
-- ranges: pairs of start and end (exclusive), 64 bit little-endian.
CREATE TABLE resident (
    site TEXT COLLATE "C" NOT NULL,
    volume TEXT COLLATE "C" NOT NULL,
    path BYTEA NOT NULL,
    ranges BYTEA NOT NULL,
    PRIMARY KEY (site, volume, path)
);
CREATE INDEX resident_by_path ON resident (volume, path);
CREATE TABLE reads (
    run TEXT COLLATE "C" NOT NULL,
    site TEXT COLLATE "C" NOT NULL,
    number BIGINT NOT NULL UNIQUE,
    first_at BIGINT NOT NULL,
    reads BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    prefetched_bytes BIGINT NOT NULL,
    hits BIGINT NOT NULL,
    late BIGINT NOT NULL,
    misses BIGINT NOT NULL,
    waited_us BIGINT NOT NULL,
    PRIMARY KEY (run, site)
);
CREATE TABLE refusals (id BIGINT PRIMARY KEY, same BYTEA NOT NULL UNIQUE, body TEXT COLLATE "C" NOT NULL);
CREATE TABLE census (
    warmup TEXT COLLATE "C" NOT NULL,
    node TEXT COLLATE "C" NOT NULL,
    sequence BIGINT NOT NULL,
    files BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    PRIMARY KEY (warmup, node)
);

CREATE TABLE warmups (
    id TEXT COLLATE "C" PRIMARY KEY,
    number BIGINT NOT NULL UNIQUE,
    site TEXT COLLATE "C" NOT NULL,
    state BIGINT NOT NULL,
    body TEXT COLLATE "C" NOT NULL,
    idempotency_key TEXT COLLATE "C" UNIQUE,
    body_hash BYTEA
);
CREATE INDEX warmups_by_state ON warmups (state, number);

CREATE TABLE tokens (
    name TEXT COLLATE "C" PRIMARY KEY,
    digest BYTEA NOT NULL UNIQUE,
    scope TEXT COLLATE "C" NOT NULL,
    made_at BIGINT NOT NULL,
    expires_at BIGINT
);
CREATE TABLE settings (name TEXT COLLATE "C" PRIMARY KEY, value TEXT COLLATE "C" NOT NULL);
CREATE TABLE events (id BIGINT PRIMARY KEY, at BIGINT NOT NULL, kind TEXT COLLATE "C" NOT NULL, body TEXT COLLATE "C" NOT NULL);
CREATE TABLE audit (id BIGINT PRIMARY KEY, at BIGINT NOT NULL, who TEXT COLLATE "C" NOT NULL, what TEXT COLLATE "C" NOT NULL, detail TEXT COLLATE "C" NOT NULL);
