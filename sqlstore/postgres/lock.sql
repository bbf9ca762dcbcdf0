-- name: clock
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000;

-- name: add
INSERT INTO settle_lease (name, owner, fence, expires_at) VALUES ($1, '', 0, 0) ON CONFLICT DO NOTHING;

-- name: read
SELECT owner, fence, expires_at FROM settle_lease WHERE name = $1 FOR UPDATE;

-- Several transactions of one holder may check at the same time; a new holder waits for all of them.
-- name: check
SELECT owner, fence, expires_at FROM settle_lease WHERE name = $1 FOR SHARE;

-- name: write
UPDATE settle_lease SET owner = $2, fence = $3, expires_at = $4 WHERE name = $1;

-- name: serialize
SELECT pg_advisory_xact_lock(hashtextextended($1::text, 7526768903));

-- By the order of bytes, which no index has: names are few. A name that was only asked for has fence 0.
-- name: list
SELECT name, owner, fence, expires_at, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000
FROM settle_lease WHERE name COLLATE "C" > $1 AND fence > 0 ORDER BY name COLLATE "C" LIMIT $2;
