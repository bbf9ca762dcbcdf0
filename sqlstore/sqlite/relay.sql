-- name: claim
INSERT INTO settle_relay (shard, owner, fence, position) VALUES (?1, ?2, 1, 0)
ON CONFLICT (shard) DO UPDATE SET owner = excluded.owner, fence = fence + 1
RETURNING fence, position;

-- name: position
SELECT fence, position FROM settle_relay WHERE shard = ?1;

-- name: fence
SELECT fence FROM settle_relay WHERE shard = ?1;

-- name: advance
UPDATE settle_relay SET position = max(position, ?3) WHERE shard = ?1 AND fence = ?2;

-- name: rewind
UPDATE settle_relay SET position = min(position, ?3) WHERE shard = ?1 AND fence = ?2;

-- name: mark
INSERT INTO settle_relay_mark (shard, position, at, tail) VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET tail = excluded.tail;

-- Marks before the oldest event kept lead nowhere.
-- name: mark_drop
DELETE FROM settle_relay_mark
WHERE shard = ?1 AND position < coalesce((SELECT min(id) FROM settle_outbox), 0) - 1;

-- name: marks
SELECT position, at, tail FROM settle_relay_mark WHERE shard = ?1 ORDER BY position DESC, at DESC;

-- name: park
INSERT INTO settle_relay_parked (id, event_id, type, version, topic, aggregate_type, aggregate_id, occurred_at,
    trace_parent, correlation_id, causation_id, idempotency_key, producer, data, created_at, cause, parked_at, attempts)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1);

-- name: park_again
UPDATE settle_relay_parked SET cause = ?2, parked_at = ?3, attempts = attempts + 1 WHERE id = ?1 RETURNING replay;

-- name: unmark
UPDATE settle_relay_parked SET replay = 0 WHERE topic = ?1 AND aggregate_id = ?2;

-- name: parked
SELECT id, created_at, event_id, type, version, topic, aggregate_type, aggregate_id, occurred_at,
    trace_parent, correlation_id, causation_id, idempotency_key, producer, data, cause, parked_at, replay
FROM settle_relay_parked WHERE id > ?1 ORDER BY id LIMIT ?2;

-- name: parked_replay
SELECT id, created_at, event_id, type, version, topic, aggregate_type, aggregate_id, occurred_at,
    trace_parent, correlation_id, causation_id, idempotency_key, producer, data, cause, parked_at, replay
FROM settle_relay_parked WHERE replay = 1 AND id > ?1
    AND (?3 = '' OR topic = ?3) AND (?4 = '' OR aggregate_id = ?4) ORDER BY id LIMIT ?2;

-- name: parked_key
SELECT id, created_at, event_id, type, version, topic, aggregate_type, aggregate_id, occurred_at,
    trace_parent, correlation_id, causation_id, idempotency_key, producer, data, cause, parked_at, replay
FROM settle_relay_parked WHERE topic = ?3 AND aggregate_id = ?4 AND id > ?1 ORDER BY id LIMIT ?2;

-- name: parked_some
SELECT id, created_at, event_id, type, version, topic, aggregate_type, aggregate_id, occurred_at,
    trace_parent, correlation_id, causation_id, idempotency_key, producer, data, cause, parked_at, replay
FROM settle_relay_parked WHERE id > ?1
    AND (?3 = '' OR topic = ?3) AND (?4 = '' OR aggregate_id = ?4) ORDER BY id LIMIT ?2;

-- name: unpark
DELETE FROM settle_relay_parked WHERE id = ?1;

-- name: replay
UPDATE settle_relay_parked SET replay = 1 WHERE topic = ?1 AND aggregate_id = ?2;

-- name: replay_topic
UPDATE settle_relay_parked SET replay = 1 WHERE topic = ?1;
