-- name: set
INSERT INTO settle_timer (key, at, event_id, type, version, topic, aggregate_type, aggregate_id, occurred_at,
    trace_parent, correlation_id, causation_id, idempotency_key, producer, data)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
ON CONFLICT (key) DO UPDATE SET at = excluded.at, event_id = excluded.event_id, type = excluded.type,
    version = excluded.version, topic = excluded.topic, aggregate_type = excluded.aggregate_type,
    aggregate_id = excluded.aggregate_id, occurred_at = excluded.occurred_at,
    trace_parent = excluded.trace_parent, correlation_id = excluded.correlation_id,
    causation_id = excluded.causation_id, idempotency_key = excluded.idempotency_key,
    producer = excluded.producer, data = excluded.data;

-- name: cancel
DELETE FROM settle_timer WHERE key = $1;

-- What another engine is about to fire is passed over: its transaction decides.
-- name: due
SELECT id, key, at, event_id, type, version, topic, aggregate_type, aggregate_id, occurred_at,
    trace_parent, correlation_id, causation_id, idempotency_key, producer, data
FROM settle_timer WHERE at <= $1 ORDER BY at, id LIMIT $2 FOR UPDATE SKIP LOCKED;

-- name: take
DELETE FROM settle_timer WHERE id IN (SELECT value::bigint FROM json_array_elements_text($1::json));

-- name: next
SELECT at FROM settle_timer ORDER BY at LIMIT 1;

-- name: count
SELECT count(*) FROM settle_timer;
