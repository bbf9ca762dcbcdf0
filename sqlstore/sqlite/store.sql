-- The single writer's transaction, and the schema's version.

-- name: begin
BEGIN IMMEDIATE;

-- name: commit
COMMIT;

-- name: rollback
ROLLBACK;

-- name: savepoint
SAVEPOINT settle_member;

-- name: release
RELEASE settle_member;

-- name: rollback_to
ROLLBACK TO settle_member;

-- name: schema_table
CREATE TABLE IF NOT EXISTS settle_schema (
    name       TEXT    NOT NULL,
    version    INTEGER NOT NULL CHECK (version >= 1),
    digest     BLOB    NOT NULL,
    applied_at INTEGER NOT NULL,
    PRIMARY KEY (name, version)
) WITHOUT ROWID;

-- name: schema_known
SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'settle_schema';

-- name: schema_versions
SELECT version, digest FROM settle_schema WHERE name = ? ORDER BY version;

-- name: schema_applied
INSERT INTO settle_schema (name, version, digest, applied_at) VALUES (?, ?, ?, ?);
