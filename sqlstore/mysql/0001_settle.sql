-- Tables of settle on MySQL and MariaDB.
CREATE TABLE settle_meta (
    `key` VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    value VARCHAR(255) NOT NULL
);
