-- The file belongs to one process, and so to its clock.
-- name: clock
SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000000;

-- name: add
INSERT INTO settle_lease (name, owner, fence, expires_at) VALUES (?1, '', 0, 0) ON CONFLICT DO NOTHING;

-- name: read
SELECT owner, fence, expires_at FROM settle_lease WHERE name = ?1;

-- name: check
SELECT owner, fence, expires_at FROM settle_lease WHERE name = ?1;

-- name: write
UPDATE settle_lease SET owner = ?2, fence = ?3, expires_at = ?4 WHERE name = ?1;

-- A name that was only asked for has fence 0.
-- name: list
SELECT name, owner, fence, expires_at, CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000000
FROM settle_lease WHERE name > ?1 AND fence > 0 ORDER BY name LIMIT ?2;
