-- Which chunks of a file stand in other files too, as its source told them; number is that of the file's last chunk among
-- all that were ever told.
CREATE TABLE shared (
    volume TEXT COLLATE "C" NOT NULL,
    directory BYTEA NOT NULL,
    name BYTEA NOT NULL,
    version TEXT COLLATE "C" NOT NULL,
    number BIGINT NOT NULL UNIQUE,
    chunks BYTEA NOT NULL,
    PRIMARY KEY (volume, directory, name)
);
