-- name: prepare
INSERT INTO settle_call (`call`, `key`, request, trace_parent, correlation_id, causation_id, due, created_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON DUPLICATE KEY UPDATE id = id;

-- name: due
SELECT id, `key`, request, trace_parent, correlation_id, causation_id, created_at, attempts, coalesce(last_error, '')
FROM settle_call WHERE `call` = ?1 AND due <= ?2 ORDER BY due, id LIMIT ?3 FOR UPDATE SKIP LOCKED;

-- Each row by its identity: a scan would wait for what other workers hold.
-- name: claim
UPDATE JSON_TABLE(?1, '$[*]' COLUMNS (id BIGINT PATH '$')) j
STRAIGHT_JOIN settle_call c FORCE INDEX (PRIMARY) ON c.id = j.id
SET c.attempts = c.attempts + 1, c.due = ?2, c.claimed = true;

-- name: finish
DELETE FROM settle_call WHERE `call` = ?1 AND `key` = ?2 AND attempts = ?3 AND claimed;

-- name: defer
UPDATE settle_call SET due = ?4, claimed = false, last_error = ?5
WHERE `call` = ?1 AND `key` = ?2 AND attempts = ?3 AND claimed;

-- name: next
SELECT due FROM settle_call WHERE `call` = ?1 ORDER BY due LIMIT 1;

-- name: pending
SELECT `call`, count(*), min(created_at), max(attempts) FROM settle_call GROUP BY `call` ORDER BY `call`;
