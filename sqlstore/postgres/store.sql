-- The schema's version, and what a migration is wrapped in. Transactions of a service belong to the driver.

-- name: begin
BEGIN;

-- name: commit
COMMIT;

-- name: rollback
ROLLBACK;

-- name: schema_table
CREATE TABLE IF NOT EXISTS settle_schema (
    name       text    NOT NULL,
    version    integer NOT NULL CHECK (version >= 1),
    digest     bytea   NOT NULL,
    applied_at bigint  NOT NULL,
    PRIMARY KEY (name, version)
);

-- name: schema_known
SELECT count(*) FROM pg_catalog.pg_class WHERE oid = to_regclass('settle_schema');

-- name: schema_versions
SELECT version, digest FROM settle_schema WHERE name = $1 ORDER BY version;

-- name: schema_applied
INSERT INTO settle_schema (name, version, digest, applied_at) VALUES ($1, $2, $3, $4);
