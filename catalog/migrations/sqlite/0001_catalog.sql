-- Times are microseconds since 1970 UTC. Counts and sizes are signed 64 bit. States are small numbers, see src/sql/words.rs.

-- Streams that listeners follow by number. A writer takes its numbers from here inside its transaction, so that a
-- reader never sees a later number before an earlier one.
CREATE TABLE counters (name TEXT PRIMARY KEY, value BIGINT NOT NULL) WITHOUT ROWID;

-- A directory is known by name when its parent was listed (seen_at null), and learned when it was listed itself.
-- files and bytes count the regular files directly in it, so that totals of a subtree need no walk over files; their
-- smallest and largest size and oldest and newest change let a search pass a directory by (null: no files).
CREATE TABLE directories (
    id INTEGER PRIMARY KEY,
    volume TEXT NOT NULL,
    path BLOB NOT NULL,
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

-- Numbers are never used again (AUTOINCREMENT): the index of names goes by them.
CREATE TABLE files (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    directory BIGINT NOT NULL,
    name BLOB NOT NULL,
    kind BIGINT NOT NULL,
    size BIGINT NOT NULL,
    modified_at BIGINT NOT NULL,
    mode BIGINT NOT NULL,
    uid BIGINT NOT NULL,
    gid BIGINT NOT NULL,
    links BIGINT NOT NULL,
    version TEXT NOT NULL,
    target TEXT
);
CREATE UNIQUE INDEX files_by_name ON files (directory, name);

-- Which files have these three characters in a row in their name; filled behind the listings, see src/sql/names.rs.
-- It keeps no text and no positions: what it finds is checked against the file.
CREATE VIRTUAL TABLE file_names USING fts5 (name, content = '', contentless_delete = 1, detail = none, tokenize = 'trigram');
CREATE TRIGGER files_gone AFTER DELETE ON files BEGIN
    DELETE FROM file_names WHERE rowid = old.id;
END;

CREATE TABLE manifests (
    volume TEXT NOT NULL,
    path BLOB NOT NULL,
    version TEXT NOT NULL,
    number BIGINT NOT NULL,
    id BLOB NOT NULL,
    size BIGINT NOT NULL,
    chunks BLOB NOT NULL,
    PRIMARY KEY (volume, path, version)
);

CREATE TABLE tags (volume TEXT NOT NULL, path BLOB NOT NULL, tags TEXT NOT NULL, PRIMARY KEY (volume, path)) WITHOUT ROWID;

-- Directories that somebody wants to know: a work queue for the agents at the source.
CREATE TABLE wishes (
    volume TEXT NOT NULL,
    path BLOB NOT NULL,
    recursive BIGINT NOT NULL,
    heat DOUBLE PRECISION NOT NULL,
    at BIGINT NOT NULL,
    taken_until BIGINT,
    taken_by TEXT,
    PRIMARY KEY (volume, path)
) WITHOUT ROWID;
CREATE INDEX wishes_by_heat ON wishes (heat DESC, at, volume, path);

CREATE TABLE agents (node TEXT PRIMARY KEY, seen_at BIGINT NOT NULL, body TEXT NOT NULL) WITHOUT ROWID;

-- What came from each node, of each kind: 0 access batches, 1 outcome batches.
CREATE TABLE accounts (
    node TEXT NOT NULL,
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
) WITHOUT ROWID;
CREATE TABLE sequences (node TEXT NOT NULL, kind BIGINT NOT NULL, sequence BIGINT NOT NULL, PRIMARY KEY (node, kind, sequence)) WITHOUT ROWID;
CREATE TABLE lake_files (number INTEGER PRIMARY KEY, at BIGINT NOT NULL, name TEXT NOT NULL);

CREATE TABLE runs (
    run TEXT PRIMARY KEY,
    number BIGINT NOT NULL UNIQUE,
    workload TEXT NOT NULL,
    site TEXT NOT NULL,
    at BIGINT NOT NULL,
    command TEXT NOT NULL,
    node TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX runs_by_workload ON runs (workload, number);
-- Apart, because an end can come before its start.
CREATE TABLE run_ends (run TEXT PRIMARY KEY, number BIGINT NOT NULL UNIQUE, at BIGINT NOT NULL) WITHOUT ROWID;

CREATE TABLE profiles (workload TEXT PRIMARY KEY, number BIGINT NOT NULL UNIQUE, body TEXT NOT NULL);
CREATE TABLE models (
    name TEXT NOT NULL,
    version BIGINT NOT NULL,
    at BIGINT NOT NULL,
    digest BLOB NOT NULL,
    bytes BLOB NOT NULL,
    PRIMARY KEY (name, version)
);
CREATE TABLE forecasts (
    id TEXT PRIMARY KEY,
    number BIGINT NOT NULL UNIQUE,
    workload TEXT NOT NULL,
    site TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    withdrawn_at BIGINT,
    head TEXT NOT NULL,
    reads BLOB NOT NULL
);

CREATE TABLE plans (
    id TEXT PRIMARY KEY,
    number BIGINT NOT NULL UNIQUE,
    made_at BIGINT NOT NULL,
    horizon BIGINT NOT NULL,
    moves BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    refused BIGINT NOT NULL,
    left_out BIGINT NOT NULL,
    body BLOB NOT NULL
);
-- change numbers what an agent must be told; number is the order of first appearance.
CREATE TABLE moves (
    id TEXT PRIMARY KEY,
    number BIGINT NOT NULL UNIQUE,
    change BIGINT NOT NULL,
    state BIGINT NOT NULL,
    plan TEXT NOT NULL,
    from_site TEXT NOT NULL,
    to_site TEXT NOT NULL,
    volume TEXT NOT NULL,
    start_at BIGINT NOT NULL,
    due_at BIGINT NOT NULL,
    warmup TEXT,
    workload TEXT,
    ended_at BIGINT,
    end_recorded_at BIGINT NOT NULL DEFAULT 0,
    wire_bytes BIGINT,
    why TEXT,
    digest BLOB NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX moves_by_change ON moves (to_site, change);
CREATE INDEX moves_by_state ON moves (state, end_recorded_at, number);

CREATE TABLE stores (
    node TEXT PRIMARY KEY,
    site TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    resident_bytes BIGINT NOT NULL,
    capacity_bytes BIGINT NOT NULL,
    at BIGINT NOT NULL
) WITHOUT ROWID;
CREATE TABLE sites (
    site TEXT PRIMARY KEY,
    prefetched_bytes BIGINT NOT NULL,
    wire_bytes BIGINT NOT NULL,
    wasted_bytes BIGINT NOT NULL,
    read_bytes BIGINT NOT NULL,
    read_prefetched_bytes BIGINT NOT NULL,
    hits BIGINT NOT NULL,
    late BIGINT NOT NULL,
    misses BIGINT NOT NULL,
    waited_us BIGINT NOT NULL
) WITHOUT ROWID;
-- ranges: pairs of start and end (exclusive), 64 bit little-endian.
CREATE TABLE resident (
    site TEXT NOT NULL,
    volume TEXT NOT NULL,
    path BLOB NOT NULL,
    ranges BLOB NOT NULL,
    PRIMARY KEY (site, volume, path)
) WITHOUT ROWID;
CREATE INDEX resident_by_path ON resident (volume, path);
CREATE TABLE reads (
    run TEXT NOT NULL,
    site TEXT NOT NULL,
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
) WITHOUT ROWID;
CREATE TABLE refusals (id INTEGER PRIMARY KEY, same BLOB NOT NULL UNIQUE, body TEXT NOT NULL);
CREATE TABLE census (
    warmup TEXT NOT NULL,
    node TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    files BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    PRIMARY KEY (warmup, node)
) WITHOUT ROWID;

CREATE TABLE warmups (
    id TEXT PRIMARY KEY,
    number BIGINT NOT NULL UNIQUE,
    site TEXT NOT NULL,
    state BIGINT NOT NULL,
    body TEXT NOT NULL,
    idempotency_key TEXT UNIQUE,
    body_hash BLOB
);
CREATE INDEX warmups_by_state ON warmups (state, number);

CREATE TABLE tokens (
    name TEXT PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    scope TEXT NOT NULL,
    made_at BIGINT NOT NULL,
    expires_at BIGINT
);
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE events (id INTEGER PRIMARY KEY, at BIGINT NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE audit (id INTEGER PRIMARY KEY, at BIGINT NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL, detail TEXT NOT NULL);
