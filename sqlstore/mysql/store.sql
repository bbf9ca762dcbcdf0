-- The schema's version. A definition of a table commits by itself here: a migration that fails half way stays
-- half done. Those of settle's own tables may be run again.

-- name: begin
START TRANSACTION;

-- name: commit
COMMIT;

-- name: rollback
ROLLBACK;

-- name: schema_table
CREATE TABLE IF NOT EXISTS settle_schema (
    name       VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    version    INT          NOT NULL CHECK (version >= 1),
    digest     VARBINARY(64) NOT NULL,
    applied_at BIGINT       NOT NULL,
    PRIMARY KEY (name, version)
) ENGINE = InnoDB;

-- name: schema_known
SELECT count(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'settle_schema';

-- name: schema_versions
SELECT version, digest FROM settle_schema WHERE name = ? ORDER BY version;

-- name: schema_applied
INSERT INTO settle_schema (name, version, digest, applied_at) VALUES (?, ?, ?, ?);
