-- A row comparison ((epoch, tick, id) > ...) is no range of an index here, what it means in full is.
-- UTC, because a local time comes twice when summer time ends.
-- name: clock
SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) * 1000;

-- name: add
INSERT INTO settle_relay (shard) VALUES (?1) ON DUPLICATE KEY UPDATE shard = shard;

-- name: hold
SELECT owner, fence, expires_at, epoch, tick, id, cluster FROM settle_relay WHERE shard = ?1 FOR UPDATE;

-- name: position
SELECT epoch, tick, id FROM settle_relay WHERE shard = ?1;

-- name: claim
UPDATE settle_relay SET owner = ?2, fence = ?3, expires_at = ?4, cluster = ?5 WHERE shard = ?1;

-- Forward only to a number that was given: another one is of a server that was lost, from which this one was promoted.
-- name: move
UPDATE settle_relay SET epoch = ?2, tick = ?3, id = ?4 WHERE shard = ?1 AND (?4 <= id OR ?4 <= seq);

-- name: mark
INSERT INTO settle_relay_mark (shard, epoch, tick, id, at, tail) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
ON DUPLICATE KEY UPDATE tail = VALUES(tail);

-- Marks before the oldest event kept lead nowhere.
-- name: mark_drop
DELETE FROM settle_relay_mark WHERE shard = ?1
    AND (epoch < ?2 OR (epoch = ?2 AND tick < ?3) OR (epoch = ?2 AND tick = ?3 AND id < ?4));

-- name: marks
SELECT epoch, tick, id, at, tail FROM settle_relay_mark WHERE shard = ?1 ORDER BY epoch DESC, tick DESC, id DESC, at DESC;

-- name: park
INSERT INTO settle_relay_parked (shard, epoch, tick, id, event_id, type, version, topic, aggregate_type, aggregate_id, occurred_at,
    trace_parent, correlation_id, causation_id, idempotency_key, producer, data, created_at, cause, parked_at, attempts)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, 1);

-- name: parked_one
SELECT replay FROM settle_relay_parked WHERE epoch = ?1 AND tick = ?2 AND id = ?3 AND shard = ?4 FOR UPDATE;

-- name: park_again
UPDATE settle_relay_parked SET cause = ?5, parked_at = ?6, attempts = attempts + 1
WHERE epoch = ?1 AND tick = ?2 AND id = ?3 AND shard = ?4;

-- name: unmark
UPDATE settle_relay_parked SET replay = false WHERE topic = ?1 AND aggregate_id = ?2;

-- name: parked
SELECT o.epoch, o.tick, o.id, o.created_at, o.event_id, o.type, o.version, o.topic, o.aggregate_type, o.aggregate_id, o.occurred_at,
    o.trace_parent, o.correlation_id, o.causation_id, o.idempotency_key, o.producer, o.data,
    o.cause, o.parked_at, o.replay
FROM settle_relay_parked o
WHERE (o.epoch > ?1 OR (o.epoch = ?1 AND o.tick > ?2) OR (o.epoch = ?1 AND o.tick = ?2 AND o.id > ?3))
    AND (?5 < 0 OR o.shard = ?5)
ORDER BY o.epoch, o.tick, o.id LIMIT ?4;

-- name: parked_replay
SELECT o.epoch, o.tick, o.id, o.created_at, o.event_id, o.type, o.version, o.topic, o.aggregate_type, o.aggregate_id, o.occurred_at,
    o.trace_parent, o.correlation_id, o.causation_id, o.idempotency_key, o.producer, o.data,
    o.cause, o.parked_at, o.replay
FROM settle_relay_parked o
WHERE (o.epoch > ?1 OR (o.epoch = ?1 AND o.tick > ?2) OR (o.epoch = ?1 AND o.tick = ?2 AND o.id > ?3))
    AND o.replay = true AND (?6 = '' OR o.topic = ?6) AND (?7 = '' OR o.aggregate_id = ?7)
    AND (?5 < 0 OR o.shard = ?5)
ORDER BY o.epoch, o.tick, o.id LIMIT ?4;

-- name: parked_key
SELECT o.epoch, o.tick, o.id, o.created_at, o.event_id, o.type, o.version, o.topic, o.aggregate_type, o.aggregate_id, o.occurred_at,
    o.trace_parent, o.correlation_id, o.causation_id, o.idempotency_key, o.producer, o.data,
    o.cause, o.parked_at, o.replay
FROM settle_relay_parked o
WHERE (o.epoch > ?1 OR (o.epoch = ?1 AND o.tick > ?2) OR (o.epoch = ?1 AND o.tick = ?2 AND o.id > ?3))
    AND o.topic = ?6 AND o.aggregate_id = ?7
    AND (?5 < 0 OR o.shard = ?5)
ORDER BY o.epoch, o.tick, o.id LIMIT ?4;

-- name: parked_some
SELECT o.epoch, o.tick, o.id, o.created_at, o.event_id, o.type, o.version, o.topic, o.aggregate_type, o.aggregate_id, o.occurred_at,
    o.trace_parent, o.correlation_id, o.causation_id, o.idempotency_key, o.producer, o.data,
    o.cause, o.parked_at, o.replay
FROM settle_relay_parked o
WHERE (o.epoch > ?1 OR (o.epoch = ?1 AND o.tick > ?2) OR (o.epoch = ?1 AND o.tick = ?2 AND o.id > ?3))
    AND (?6 = '' OR o.topic = ?6) AND (?7 = '' OR o.aggregate_id = ?7)
    AND (?5 < 0 OR o.shard = ?5)
ORDER BY o.epoch, o.tick, o.id LIMIT ?4;

-- name: unpark
DELETE FROM settle_relay_parked WHERE epoch = ?1 AND tick = ?2 AND id = ?3 AND shard = ?4;

-- A row that is written as it was counts as not affected, unless the client asks for rows found: it must change.
-- name: replay
UPDATE settle_relay_parked SET replay = true, changed = changed + 1 WHERE topic = ?1 AND aggregate_id = ?2;

-- name: replay_topic
UPDATE settle_relay_parked SET replay = true, changed = changed + 1 WHERE topic = ?1;

-- What is parked of a page of records, for the operator's list.
-- name: failed
SELECT epoch, tick, id, attempts, parked_at, cause FROM settle_relay_parked
WHERE shard = ?1
    AND (epoch > ?2 OR (epoch = ?2 AND tick > ?3) OR (epoch = ?2 AND tick = ?3 AND id > ?4))
    AND (epoch < ?5 OR (epoch = ?5 AND tick < ?6) OR (epoch = ?5 AND tick = ?6 AND id <= ?7));

-- name: list_failed
SELECT o.epoch, o.tick, o.id, o.created_at, o.event_id, o.type, o.version, o.topic, o.aggregate_type, o.aggregate_id, o.occurred_at,
    o.trace_parent, o.correlation_id, o.causation_id, o.idempotency_key, o.producer, o.data,
    o.attempts, o.parked_at, o.cause
FROM settle_relay_parked o
WHERE (o.epoch > ?1 OR (o.epoch = ?1 AND o.tick > ?2) OR (o.epoch = ?1 AND o.tick = ?2 AND o.id > ?3))
ORDER BY o.epoch, o.tick, o.id LIMIT ?4;
