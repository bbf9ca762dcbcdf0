-- The order of the arrays is the order of the ids.
-- name: add
INSERT INTO settle_outbox (shard, event_id, type, version, topic, aggregate_type, aggregate_id, occurred_at,
    trace_parent, correlation_id, causation_id, idempotency_key, producer, data, created_at)
SELECT u.shard, u.event_id, u.type, u.version, u.topic, u.aggregate_type, u.aggregate_id, u.occurred_at,
    u.trace_parent, u.correlation_id, u.causation_id, u.idempotency_key, u.producer, u.data, $15
FROM unnest($1::smallint[], $2::uuid[], $3::text[], $4::integer[], $5::text[], $6::text[], $7::text[], $8::bigint[],
    $9::text[], $10::text[], $11::uuid[], $12::text[], $13::text[], $14::bytea[]) WITH ORDINALITY
    AS u (shard, event_id, type, version, topic, aggregate_type, aggregate_id, occurred_at,
    trace_parent, correlation_id, causation_id, idempotency_key, producer, data, n)
ORDER BY u.n;

-- Whether anything is visible that was not in a snapshot ($2 its xmax, $3 its xip).
-- name: news
SELECT EXISTS (SELECT 1 FROM settle_outbox WHERE xid >= $2::text::xid8 AND shard = $1)
    OR EXISTS (SELECT 1 FROM settle_outbox WHERE xid = ANY ($3::text[]::xid8[]) AND shard = $1);

-- name: head
SELECT tick, snapshot::text, at FROM settle_tick WHERE shard = $1 ORDER BY tick DESC LIMIT 1;

-- The statement's own snapshot is the new one. Whoever runs it holds the shard's row of settle_relay.
-- name: tick
INSERT INTO settle_tick (shard, tick, snapshot, lsn, at)
SELECT $1, $2, pg_current_snapshot(), pg_current_wal_insert_lsn(), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000;

-- name: baseline
INSERT INTO settle_tick (shard, tick, snapshot, lsn, at)
SELECT $1, $2, '1:1:', '0/0', (extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000
ON CONFLICT DO NOTHING;

-- name: ticks
SELECT tick, snapshot::text, coalesce(last_id, -1), (lsn - '0/0')::bigint FROM settle_tick WHERE shard = $1 AND tick >= $2 ORDER BY tick LIMIT $3;

-- The last tick whose snapshot shows nothing that was committed behind a place in the log.
-- name: tick_at
SELECT coalesce(max(tick), 0) FROM settle_tick WHERE shard = $1 AND lsn <= '0/0'::pg_lsn + $2::bigint;

-- A window: committed after the snapshot before ($2 its xmax, $3 its xip), visible in this one ($4).
-- name: window
SELECT o.id, o.created_at, o.event_id, o.type, o.version, o.topic, o.aggregate_type, o.aggregate_id, o.occurred_at,
    o.trace_parent, o.correlation_id, o.causation_id, o.idempotency_key, o.producer, o.data
FROM settle_outbox o
WHERE o.shard = $1 AND o.id > $5 AND pg_visible_in_snapshot(o.xid, $4::text::pg_snapshot)
    AND (o.xid >= $2::text::xid8 AND o.xid < pg_snapshot_xmax($4::text::pg_snapshot) OR o.xid = ANY ($3::text[]::xid8[]))
ORDER BY o.id LIMIT $6;

-- name: window_end
SELECT coalesce(max(o.id), 0) FROM settle_outbox o
WHERE o.shard = $1 AND o.id > $5 AND pg_visible_in_snapshot(o.xid, $4::text::pg_snapshot)
    AND (o.xid >= $2::text::xid8 AND o.xid < pg_snapshot_xmax($4::text::pg_snapshot) OR o.xid = ANY ($3::text[]::xid8[]));

-- name: now
SELECT pg_current_snapshot()::text;

-- name: pending
SELECT count(*), coalesce(min(o.created_at), 0) FROM settle_outbox o
WHERE o.shard = $1
    AND (o.xid >= $2::text::xid8 OR o.xid = ANY ($3::text[]::xid8[]))
    AND NOT (pg_visible_in_snapshot(o.xid, $4::text::pg_snapshot) AND o.id <= $5);

-- name: total
SELECT (SELECT count(*) FROM settle_outbox WHERE shard = $1), (SELECT count(*) FROM settle_relay_parked WHERE shard = $1);

-- The last window that is settled as a whole ($2) and older than the retention ($3).
-- name: purgeable
SELECT tick, snapshot::text FROM settle_tick WHERE shard = $1 AND tick <= $2 AND at < $3 ORDER BY tick DESC LIMIT 1;

-- name: keep_from
UPDATE settle_tick SET last_id = $3 WHERE shard = $1 AND tick = $2 AND last_id IS NULL;

-- name: purge_ticks
DELETE FROM settle_tick WHERE shard = $1 AND tick < $2;

-- name: slot_rows_0
SELECT count(*), count(*) FILTER (WHERE NOT pg_visible_in_snapshot(xid, $1::text::pg_snapshot)) FROM settle_outbox_0;
-- name: slot_rows_1
SELECT count(*), count(*) FILTER (WHERE NOT pg_visible_in_snapshot(xid, $1::text::pg_snapshot)) FROM settle_outbox_1;
-- name: slot_rows_2
SELECT count(*), count(*) FILTER (WHERE NOT pg_visible_in_snapshot(xid, $1::text::pg_snapshot)) FROM settle_outbox_2;
-- name: slot_rows_3
SELECT count(*), count(*) FILTER (WHERE NOT pg_visible_in_snapshot(xid, $1::text::pg_snapshot)) FROM settle_outbox_3;

-- A slot that is in use is not waited for.
-- name: slot_lock_0
LOCK TABLE settle_outbox_0 IN ACCESS EXCLUSIVE MODE NOWAIT;
-- name: slot_lock_1
LOCK TABLE settle_outbox_1 IN ACCESS EXCLUSIVE MODE NOWAIT;
-- name: slot_lock_2
LOCK TABLE settle_outbox_2 IN ACCESS EXCLUSIVE MODE NOWAIT;
-- name: slot_lock_3
LOCK TABLE settle_outbox_3 IN ACCESS EXCLUSIVE MODE NOWAIT;

-- name: slot_empty_0
TRUNCATE settle_outbox_0;
-- name: slot_empty_1
TRUNCATE settle_outbox_1;
-- name: slot_empty_2
TRUNCATE settle_outbox_2;
-- name: slot_empty_3
TRUNCATE settle_outbox_3;
