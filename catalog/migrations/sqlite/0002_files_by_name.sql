-- A file's row lies where its directory and name say: a look-up reads one page of the tree in place of an index's and then
-- a row's, and a directory's files lie side by side. The index of names goes by numbers, which are drawn from counters
-- and never used again.
CREATE TABLE named_files (
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
    target TEXT,
    id BIGINT NOT NULL,
    PRIMARY KEY (directory, name)
) WITHOUT ROWID;
INSERT INTO named_files
    SELECT directory, name, kind, size, modified_at, mode, uid, gid, links, version, target, id FROM files
    ORDER BY directory, name;
INSERT INTO counters (name, value) SELECT 'files', seq FROM sqlite_sequence WHERE sqlite_sequence.name = 'files';

DROP TABLE files;
ALTER TABLE named_files RENAME TO files;
CREATE UNIQUE INDEX files_by_number ON files (id);
CREATE TRIGGER files_gone AFTER DELETE ON files BEGIN
    DELETE FROM file_names WHERE rowid = old.id;
END;
