-- A transaction's last statement, for each of its events. Identities follow the order of adding, whatever the
-- server's innodb_autoinc_lock_mode is.
-- name: add
INSERT INTO settle_outbox (shard, event_id, type, version, topic, aggregate_type, aggregate_id, occurred_at,
    trace_parent, correlation_id, causation_id, idempotency_key, producer, data, created_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- Eight at once cost half.
-- name: add_eight
INSERT INTO settle_outbox (shard, event_id, type, version, topic, aggregate_type, aggregate_id, occurred_at,
    trace_parent, correlation_id, causation_id, idempotency_key, producer, data, created_at)
VALUES
    (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?),
    (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?),
    (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?),
    (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?),
    (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?),
    (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?),
    (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?),
    (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- How far the shard is numbered, and whether there is anything new.
-- name: news
SELECT fence, seq, shown, EXISTS (SELECT 1 FROM settle_outbox WHERE shard = ?1 AND seq IS NULL)
FROM settle_relay WHERE shard = ?1;

-- name: last
SELECT seq, shown FROM settle_relay WHERE shard = ?1;

-- A statement's own snapshot shows an aggregate's event only with all those before it. A read that locks would
-- wait for transactions that are under way, or pass over a row while it is being committed: neither will do.
-- name: new
SELECT id FROM settle_outbox WHERE shard = ?1 AND seq IS NULL ORDER BY id LIMIT ?2;

-- Each row by its identity: a scan would wait for rows of transactions that are under way.
-- name: number
UPDATE JSON_TABLE(?1, '$[*]' COLUMNS (n FOR ORDINALITY, id BIGINT PATH '$')) j
STRAIGHT_JOIN settle_outbox o FORCE INDEX (PRIMARY) ON o.id = j.id
SET o.seq = ?2 + j.n;

-- name: numbered
UPDATE settle_relay SET seq = ?2, shown = ?3 WHERE shard = ?1;

-- name: after
SELECT o.seq, o.created_at, o.event_id, o.type, o.version, o.topic, o.aggregate_type, o.aggregate_id, o.occurred_at,
    o.trace_parent, o.correlation_id, o.causation_id, o.idempotency_key, o.producer, o.data
FROM settle_outbox o FORCE INDEX (settle_outbox_seq)
WHERE o.shard = ?1 AND o.seq > ?2 AND o.seq <= ?3 ORDER BY o.seq LIMIT ?4;

-- Those that have no position yet, for the operator's list.
-- name: after_new
SELECT o.id, o.created_at, o.event_id, o.type, o.version, o.topic, o.aggregate_type, o.aggregate_id, o.occurred_at,
    o.trace_parent, o.correlation_id, o.causation_id, o.idempotency_key, o.producer, o.data
FROM settle_outbox o FORCE INDEX (settle_outbox_seq)
WHERE o.shard = ?1 AND o.seq IS NULL AND o.id > ?2 ORDER BY o.id LIMIT ?3;

-- name: first
SELECT coalesce(min(seq), 0) FROM settle_outbox WHERE shard = ?1 AND seq > 0;

-- The first of the events from ?2 to ?3 that is too young to be purged (?4).
-- name: young
SELECT coalesce(min(seq), 0) FROM settle_outbox FORCE INDEX (settle_outbox_seq)
WHERE shard = ?1 AND seq BETWEEN ?2 AND ?3 AND created_at >= ?4;

-- name: purge
DELETE FROM settle_outbox WHERE shard = ?1 AND seq BETWEEN ?2 AND ?3;

-- name: stats
SELECT coalesce(r.id, 0), coalesce(r.seq, 0),
    (SELECT coalesce(min(seq), 0) FROM settle_outbox WHERE shard = s.shard AND seq > 0),
    (SELECT count(*) FROM settle_outbox WHERE shard = s.shard AND seq IS NULL),
    coalesce((SELECT created_at FROM settle_outbox WHERE shard = s.shard AND seq > coalesce(r.id, 0) ORDER BY seq LIMIT 1), 0),
    coalesce((SELECT created_at FROM settle_outbox WHERE shard = s.shard AND seq IS NULL ORDER BY id LIMIT 1), 0),
    (SELECT count(*) FROM settle_relay_parked WHERE shard = s.shard)
FROM (SELECT ?1 AS shard) s LEFT JOIN settle_relay r ON r.shard = s.shard;
