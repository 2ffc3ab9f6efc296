-- Which chunks of a file stand in other files too, as its source told them; number is that of the file's last chunk among
-- all that were ever told.
CREATE TABLE shared (
    volume TEXT NOT NULL,
    directory BLOB NOT NULL,
    name BLOB NOT NULL,
    version TEXT NOT NULL,
    number BIGINT NOT NULL UNIQUE,
    chunks BLOB NOT NULL,
    PRIMARY KEY (volume, directory, name)
);
