-- UTC, because a local time comes twice when summer time ends.
-- name: clock
SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) * 1000;

-- name: add
INSERT INTO settle_lease (name, owner, fence, expires_at) VALUES (?1, '', 0, 0) ON DUPLICATE KEY UPDATE name = name;

-- name: read
SELECT owner, fence, expires_at FROM settle_lease WHERE name = ?1 FOR UPDATE;

-- name: check
SELECT owner, fence, expires_at FROM settle_lease WHERE name = ?1 LOCK IN SHARE MODE;

-- name: write
UPDATE settle_lease SET owner = ?2, fence = ?3, expires_at = ?4 WHERE name = ?1;

-- The row stays locked until the transaction is over.
-- name: serialize
INSERT INTO settle_serial (slot) VALUES (?1) ON DUPLICATE KEY UPDATE slot = slot;

-- A name that was only asked for has fence 0.
-- name: list
SELECT name, owner, fence, expires_at, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) * 1000
FROM settle_lease WHERE name > ?1 AND fence > 0 ORDER BY name LIMIT ?2;
