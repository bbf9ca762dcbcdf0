-- name: set
INSERT INTO settle_timer (`key`, at, event_id, type, version, topic, aggregate_type, aggregate_id, occurred_at,
    trace_parent, correlation_id, causation_id, idempotency_key, producer, data)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)
ON DUPLICATE KEY UPDATE at = VALUES(at), event_id = VALUES(event_id), type = VALUES(type),
    version = VALUES(version), topic = VALUES(topic), aggregate_type = VALUES(aggregate_type),
    aggregate_id = VALUES(aggregate_id), occurred_at = VALUES(occurred_at),
    trace_parent = VALUES(trace_parent), correlation_id = VALUES(correlation_id),
    causation_id = VALUES(causation_id), idempotency_key = VALUES(idempotency_key),
    producer = VALUES(producer), data = VALUES(data);

-- name: cancel
DELETE FROM settle_timer WHERE `key` = ?1;

-- What another engine is about to fire is passed over: its transaction decides.
-- name: due
SELECT id, `key`, at, event_id, type, version, topic, aggregate_type, aggregate_id, occurred_at,
    trace_parent, correlation_id, causation_id, idempotency_key, producer, data
FROM settle_timer WHERE at <= ?1 ORDER BY at, id LIMIT ?2 FOR UPDATE SKIP LOCKED;

-- Each row by its identity: a scan would wait for what other engines hold.
-- name: take
DELETE t FROM JSON_TABLE(?1, '$[*]' COLUMNS (id BIGINT PATH '$')) j
STRAIGHT_JOIN settle_timer t FORCE INDEX (PRIMARY) ON t.id = j.id;

-- name: next
SELECT at FROM settle_timer ORDER BY at LIMIT 1;

-- name: count
SELECT count(*) FROM settle_timer;
