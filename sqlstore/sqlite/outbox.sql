-- name: add
INSERT INTO settle_outbox (event_id, type, version, topic, aggregate_type, aggregate_id, occurred_at,
    trace_parent, correlation_id, causation_id, idempotency_key, producer, data, created_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: after
SELECT id, created_at, event_id, type, version, topic, aggregate_type, aggregate_id, occurred_at,
    trace_parent, correlation_id, causation_id, idempotency_key, producer, data
FROM settle_outbox WHERE id > ?1 ORDER BY id LIMIT ?2;

-- name: bounds
SELECT coalesce((SELECT min(id) FROM settle_outbox), 0),
    max(coalesce((SELECT max(id) FROM settle_outbox), 0),
        coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'settle_outbox'), 0));

-- name: list
SELECT o.id, o.created_at, o.event_id, o.type, o.version, o.topic, o.aggregate_type, o.aggregate_id, o.occurred_at,
    o.trace_parent, o.correlation_id, o.causation_id, o.idempotency_key, o.producer, o.data,
    coalesce(p.attempts, 0), coalesce(p.parked_at, 0), coalesce(p.cause, '')
FROM settle_outbox o LEFT JOIN settle_relay_parked p ON p.id = o.id
WHERE o.id > ?1 AND o.id <= ?2 ORDER BY o.id LIMIT ?3;

-- name: list_sent
SELECT o.id, o.created_at, o.event_id, o.type, o.version, o.topic, o.aggregate_type, o.aggregate_id, o.occurred_at,
    o.trace_parent, o.correlation_id, o.causation_id, o.idempotency_key, o.producer, o.data, 0, 0, ''
FROM settle_outbox o
WHERE o.id > ?1 AND o.id <= ?2 AND NOT EXISTS (SELECT 1 FROM settle_relay_parked p WHERE p.id = o.id)
ORDER BY o.id LIMIT ?3;

-- name: list_failed
SELECT p.id, p.created_at, p.event_id, p.type, p.version, p.topic, p.aggregate_type, p.aggregate_id, p.occurred_at,
    p.trace_parent, p.correlation_id, p.causation_id, p.idempotency_key, p.producer, p.data,
    p.attempts, p.parked_at, p.cause
FROM settle_relay_parked p WHERE p.id > ?1 AND p.id <= ?2 ORDER BY p.id LIMIT ?3;

-- Only the first ?2 rows are looked at: identities have no gaps, so a purge costs what it deletes.
-- name: purge
DELETE FROM settle_outbox WHERE id IN (
    SELECT id FROM settle_outbox
    WHERE id < (SELECT min(id) FROM settle_outbox) + ?2
        AND id <= coalesce((SELECT position FROM settle_relay WHERE shard = 0), 0)
        AND created_at < ?1
    ORDER BY id LIMIT ?2);

-- name: oldest
SELECT coalesce(min(id), 0) FROM settle_outbox;

-- name: stats
SELECT r.position, coalesce((SELECT created_at FROM settle_outbox WHERE id > r.position ORDER BY id LIMIT 1), 0),
    coalesce((SELECT min(id) FROM settle_outbox), 0),
    max(coalesce((SELECT max(id) FROM settle_outbox), 0),
        coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'settle_outbox'), 0)),
    (SELECT count(*) FROM settle_relay_parked)
FROM (SELECT coalesce((SELECT position FROM settle_relay WHERE shard = 0), 0) AS position) r;
