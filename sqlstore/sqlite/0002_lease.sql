-- Leases of package lock. No row is ever deleted, so that a fence never returns.
CREATE TABLE settle_lease (
    name       TEXT    NOT NULL PRIMARY KEY,
    owner      TEXT    NOT NULL,
    fence      INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) WITHOUT ROWID;
