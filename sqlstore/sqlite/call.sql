-- name: prepare
INSERT INTO settle_call (call, key, request, trace_parent, correlation_id, causation_id, due, created_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (call, key) DO NOTHING;

-- name: due
SELECT id, key, request, trace_parent, correlation_id, causation_id, created_at, attempts, last_error
FROM settle_call WHERE call = ?1 AND due <= ?2 ORDER BY due, id LIMIT ?3;

-- name: claim
UPDATE settle_call SET attempts = attempts + 1, due = ?2, claimed = 1 WHERE id IN (SELECT value FROM json_each(?1));

-- name: finish
DELETE FROM settle_call WHERE call = ?1 AND key = ?2 AND attempts = ?3 AND claimed = 1;

-- name: defer
UPDATE settle_call SET due = ?4, claimed = 0, last_error = ?5
WHERE call = ?1 AND key = ?2 AND attempts = ?3 AND claimed = 1;

-- The owner of the file is new: whoever held a lease is gone, so nothing waits for its end.
-- name: reclaim
UPDATE settle_call SET due = ?1, claimed = 0 WHERE claimed = 1;

-- name: next
SELECT due FROM settle_call WHERE call = ?1 ORDER BY due LIMIT 1;

-- name: pending
SELECT call, count(*), min(created_at), max(attempts) FROM settle_call GROUP BY call ORDER BY call;
