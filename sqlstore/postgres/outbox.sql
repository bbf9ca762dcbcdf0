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

-- One event, the usual case: no arrays to take apart. Any driver can send it.
-- name: add_one
INSERT INTO settle_outbox (shard, event_id, type, version, topic, aggregate_type, aggregate_id, occurred_at,
    trace_parent, correlation_id, causation_id, idempotency_key, producer, data, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15);

-- The first tick shows nothing: no transaction has a number below 3.
-- name: baseline
INSERT INTO settle_tick (shard, tick, snapshot, lsn, at, events)
SELECT $1, 0, '3:3:', '0/0', (extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000, 0
WHERE NOT EXISTS (SELECT 1 FROM settle_tick WHERE shard = $1);

-- Whether there is a row of a transaction, or a tick, that this cluster has not come to yet; and the timeline of its log.
-- name: foreign
SELECT (coalesce((SELECT xid FROM settle_outbox WHERE shard = $1 ORDER BY xid DESC LIMIT 1), '0'::xid8)
        >= pg_snapshot_xmax(pg_current_snapshot())
    OR coalesce((SELECT pg_snapshot_xmax(snapshot) FROM settle_tick WHERE shard = $1 ORDER BY tick DESC LIMIT 1), '0'::xid8)
        > pg_snapshot_xmax(pg_current_snapshot())), left(pg_walfile_name(pg_current_wal_insert_lsn()), 8);

-- An empty window with a number that nobody can have come to on a timeline before: microseconds outrun every counter.
-- name: jump
INSERT INTO settle_tick (shard, tick, snapshot, lsn, at, events)
SELECT $1, greatest(tick + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint), snapshot, lsn,
    (extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000, 0
FROM settle_tick WHERE shard = $1 ORDER BY tick DESC LIMIT 1;

-- What stands in the windows from $2 on, in the first of them after $3: of as many windows as fill a page, and no
-- more than $4. A window is what a snapshot shows and the one before does not: transactions that began after
-- that one, and those that were running then. (OFFSET 0 keeps the planner from reading the whole log for the
-- latter; it knows nothing of windows.) Of a window of $6 events or more it returns any one: see parts.
-- name: next
WITH w AS MATERIALIZED (
    SELECT tick, snapshot, prev, events, floor_tick, floor_id FROM (
        SELECT t.tick, t.snapshot, t.events, lag(t.snapshot) OVER (ORDER BY t.tick) AS prev, r.floor_tick, r.floor_id,
            sum(t.events) OVER (ORDER BY t.tick) - t.events
                - sum(CASE WHEN t.tick <= greatest($2, r.floor_tick) THEN t.events ELSE 0 END) OVER (ORDER BY t.tick) AS before
        FROM settle_relay r JOIN settle_tick t ON t.shard = $1
            AND t.tick >= greatest($2::bigint, r.floor_tick) - 1 AND t.tick <= greatest($2, r.floor_tick) + $4::bigint
        WHERE r.shard = $1) t
    WHERE prev IS NOT NULL AND before < $5::bigint
)
SELECT w.floor_tick, w.floor_id, w.events, w.tick, o.id, o.created_at, o.event_id, o.type, o.version, o.topic, o.aggregate_type, o.aggregate_id, o.occurred_at,
    o.trace_parent, o.correlation_id, o.causation_id, o.idempotency_key, o.producer, o.data
FROM w CROSS JOIN LATERAL (SELECT * FROM (
    SELECT o.* FROM settle_outbox o
    WHERE o.shard = $1 AND o.xid >= pg_snapshot_xmax(w.prev) AND o.xid < pg_snapshot_xmax(w.snapshot)
        AND pg_visible_in_snapshot(o.xid, w.snapshot)
    UNION ALL
    SELECT o.* FROM pg_snapshot_xip(w.prev) AS x (xid) CROSS JOIN LATERAL (
        SELECT o.* FROM settle_outbox o
        WHERE o.shard = $1 AND o.xid = x.xid AND pg_visible_in_snapshot(o.xid, w.snapshot) OFFSET 0) o) o
    LIMIT CASE WHEN w.events >= $6::bigint THEN 1 END) o
WHERE w.tick > $2 OR o.id > $3::bigint OR w.events >= $6
ORDER BY w.tick, o.id LIMIT $5;

-- How the rows of a large window lie: for each $3 row numbers in a row, which there are, and which transactions
-- wrote them. It needs the index only.
-- name: parts
SELECT min(o.id), max(o.id), min(o.xid), max(o.xid), count(*) FROM (
    SELECT o.id, o.xid::text::bigint AS xid
    FROM settle_tick p JOIN settle_tick t ON t.shard = p.shard AND t.tick = p.tick + 1
    CROSS JOIN LATERAL (
        SELECT o.xid, o.id FROM settle_outbox o
        WHERE o.shard = $1 AND o.xid >= pg_snapshot_xmax(p.snapshot) AND o.xid < pg_snapshot_xmax(t.snapshot)
            AND pg_visible_in_snapshot(o.xid, t.snapshot)
        UNION ALL
        SELECT o.xid, o.id FROM pg_snapshot_xip(p.snapshot) AS x (xid) CROSS JOIN LATERAL (
            SELECT o.xid, o.id FROM settle_outbox o
            WHERE o.shard = $1 AND o.xid = x.xid AND pg_visible_in_snapshot(o.xid, t.snapshot) OFFSET 0) o) o
    WHERE p.shard = $1 AND p.tick = $2::bigint - 1 AND t.tick = $2 OFFSET 0) o
GROUP BY o.id / $3::bigint ORDER BY 1;

-- A part of a window: the row numbers after $3 up to $4, which transactions $5 to $6 wrote.
-- name: part
SELECT r.floor_tick, r.floor_id, t.tick, o.id, o.created_at, o.event_id, o.type, o.version, o.topic, o.aggregate_type, o.aggregate_id, o.occurred_at,
    o.trace_parent, o.correlation_id, o.causation_id, o.idempotency_key, o.producer, o.data
FROM settle_relay r JOIN settle_tick p ON p.shard = r.shard JOIN settle_tick t ON t.shard = r.shard
CROSS JOIN LATERAL (
    SELECT o.* FROM settle_outbox o
    WHERE o.shard = $1 AND o.xid >= $5::bigint::text::xid8 AND o.xid <= $6::bigint::text::xid8 AND o.id > $3 AND o.id <= $4
        AND pg_visible_in_snapshot(o.xid, t.snapshot) AND NOT pg_visible_in_snapshot(o.xid, p.snapshot) OFFSET 0) o
WHERE r.shard = $1 AND p.tick = $2::bigint - 1 AND t.tick = $2 ORDER BY o.id;

-- How far the windows go and which is the first behind $2, who owns the shard, up to where something may have been purged,
-- and whether the owner has seen the timeline that this server writes.
-- name: bounds
SELECT r.floor_tick, r.floor_id, r.fence, coalesce((SELECT max(tick) FROM settle_tick WHERE shard = $1), -1),
    coalesce((SELECT min(tick) FROM settle_tick WHERE shard = $1 AND tick > $2::bigint), -1),
    CASE WHEN pg_is_in_recovery() THEN true ELSE right(r.cluster, 8) = left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) END
FROM settle_relay r WHERE r.shard = $1;

-- Ends a window when something is visible that is in none yet, and returns what stands in it. The statement's
-- own snapshot is the new tick's. It holds the owner's row, so that a newer owner comes before or after it, and
-- with nothing new it writes nothing. It is on disk when it returns, and so is all that it shows. $2 is the last tick as the owner knows it.
-- Of $6 events or more it returns any one: see parts. On a timeline that the owner has not seen it does nothing: see jump.
-- name: tick
WITH p AS MATERIALIZED (
    SELECT tick, snapshot FROM settle_tick WHERE shard = $1 ORDER BY tick DESC LIMIT 1
), news AS MATERIALIZED (
    SELECT count(*) AS events FROM p CROSS JOIN LATERAL (
        SELECT 1 FROM settle_outbox o
        WHERE o.shard = $1 AND o.xid >= pg_snapshot_xmax(p.snapshot) AND o.xid < pg_snapshot_xmax(pg_current_snapshot())
        UNION ALL
        SELECT 1 FROM pg_snapshot_xip(p.snapshot) AS x (xid) CROSS JOIN LATERAL (
            SELECT 1 FROM settle_outbox o WHERE o.shard = $1 AND o.xid = x.xid OFFSET 0) o
        LIMIT 10000) o
    WHERE p.tick = $2 AND pg_snapshot_xmax(pg_current_snapshot()) >= pg_snapshot_xmax(p.snapshot)
        AND (SELECT right(cluster, 8) FROM settle_relay WHERE shard = $1) = left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)
), n AS (
    INSERT INTO settle_tick (shard, tick, snapshot, lsn, at, events)
    SELECT $1, $2 + 1, pg_current_snapshot(), pg_current_wal_insert_lsn(), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000,
        (SELECT events FROM news)
    FROM (SELECT 1 FROM settle_relay WHERE shard = $1 AND fence = $3 AND owner = $4 FOR UPDATE) r
    WHERE (SELECT events FROM news) > 0
        AND (current_setting('synchronous_commit') <> 'off' OR set_config('synchronous_commit', 'on', true) = 'on')
    RETURNING tick, snapshot, events
)
SELECT n.events, n.tick, o.id, o.created_at, o.event_id, o.type, o.version, o.topic, o.aggregate_type, o.aggregate_id, o.occurred_at,
    o.trace_parent, o.correlation_id, o.causation_id, o.idempotency_key, o.producer, o.data
FROM n CROSS JOIN p CROSS JOIN LATERAL (SELECT * FROM (
    SELECT o.* FROM settle_outbox o
    WHERE o.shard = $1 AND o.xid >= pg_snapshot_xmax(p.snapshot) AND o.xid < pg_snapshot_xmax(n.snapshot)
        AND pg_visible_in_snapshot(o.xid, n.snapshot)
    UNION ALL
    SELECT o.* FROM pg_snapshot_xip(p.snapshot) AS x (xid) CROSS JOIN LATERAL (
        SELECT o.* FROM settle_outbox o
        WHERE o.shard = $1 AND o.xid = x.xid AND pg_visible_in_snapshot(o.xid, n.snapshot) OFFSET 0) o) o
    LIMIT CASE WHEN n.events >= $6::bigint THEN 1 END) o
ORDER BY o.id LIMIT $5;

-- What is in no window yet, for the operator's list.
-- name: open
SELECT p.tick + 1, o.id, o.created_at, o.event_id, o.type, o.version, o.topic, o.aggregate_type, o.aggregate_id, o.occurred_at,
    o.trace_parent, o.correlation_id, o.causation_id, o.idempotency_key, o.producer, o.data
FROM ((SELECT tick, snapshot FROM settle_tick WHERE shard = $1 ORDER BY tick DESC LIMIT 1)
    UNION ALL SELECT 0, '3:3:' WHERE NOT EXISTS (SELECT 1 FROM settle_tick WHERE shard = $1)) p
CROSS JOIN LATERAL (
    SELECT o.* FROM settle_outbox o
    WHERE o.shard = $1 AND o.xid >= pg_snapshot_xmax(p.snapshot) AND o.xid < pg_snapshot_xmax(pg_current_snapshot())
        AND pg_visible_in_snapshot(o.xid, pg_current_snapshot())
    UNION ALL
    SELECT o.* FROM pg_snapshot_xip(p.snapshot) AS x (xid) CROSS JOIN LATERAL (
        SELECT o.* FROM settle_outbox o
        WHERE o.shard = $1 AND o.xid = x.xid AND pg_visible_in_snapshot(o.xid, pg_current_snapshot()) OFFSET 0) o) o
WHERE o.id > $2 ORDER BY o.id LIMIT $3;

-- The last tick whose snapshot shows nothing that was committed behind a place in the log.
-- name: tick_at
SELECT coalesce(max(tick), 0) FROM settle_tick WHERE shard = $1 AND lsn <= '0/0'::pg_lsn + $2::bigint;

-- The position before the oldest event kept, by windows and by the log.
-- name: floor
SELECT r.floor_tick, r.floor_id, coalesce((SELECT (lsn - '0/0')::bigint FROM settle_tick t WHERE t.shard = $1 AND t.tick = r.floor_tick), 0)
FROM settle_relay r WHERE r.shard = $1;

-- What is not settled up to a place ($2, $3), no more than $4 of them, and when the first of it was made: order by
-- the transaction's number is nearly that by time.
-- name: pending
WITH s AS MATERIALIZED (
    SELECT (SELECT snapshot FROM settle_tick WHERE shard = $1 AND tick = $2::bigint - 1) AS prev,
        (SELECT snapshot FROM settle_tick WHERE shard = $1 AND tick = $2) AS cur
), w AS (
    SELECT o.created_at FROM s CROSS JOIN LATERAL (
        SELECT o.xid, o.created_at FROM settle_outbox o
        WHERE o.shard = $1 AND o.xid >= coalesce(pg_snapshot_xmin(s.prev), '0'::xid8)
            AND NOT (coalesce(pg_visible_in_snapshot(o.xid, s.prev), false)
                OR o.id <= $3 AND coalesce(pg_visible_in_snapshot(o.xid, s.cur), false))
        ORDER BY o.xid LIMIT $4) o
)
SELECT count(*), coalesce((SELECT min(f.created_at) FROM (SELECT created_at FROM w LIMIT 1000) f), 0) FROM w;

-- How many rows there are, counted up to $2, and as the last ANALYZE knew.
-- name: total
SELECT (SELECT count(*) FROM (SELECT 1 FROM settle_outbox WHERE shard = $1 LIMIT $2) o),
    (SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'settle_outbox'::regclass),
    (SELECT count(*) FROM settle_relay_parked WHERE shard = $1);

-- The half day, by the clock that gives rows their slot.
-- name: half_day
SELECT extract(epoch FROM clock_timestamp())::bigint / 43200;

-- The oldest rows, in the order of positions. Between the windows of two timelines there is a gap.
-- name: oldest
WITH w AS MATERIALIZED (
    SELECT tick, snapshot, prev, floor_tick, floor_id FROM (
        SELECT t.tick, t.snapshot, lag(t.snapshot) OVER (ORDER BY t.tick) AS prev, r.floor_tick, r.floor_id,
            sum(t.events) OVER (ORDER BY t.tick) - t.events
                - sum(CASE WHEN t.tick <= r.floor_tick THEN t.events ELSE 0 END) OVER (ORDER BY t.tick) AS before
        FROM settle_relay r CROSS JOIN LATERAL (
            SELECT * FROM settle_tick t WHERE t.shard = $1 AND t.tick >= r.floor_tick - 1 AND t.tick <= $2::bigint
            ORDER BY t.tick LIMIT $4::bigint + 2) t
        WHERE r.shard = $1) t
    WHERE prev IS NOT NULL AND before < $4
)
SELECT w.tick, o.id, o.xid::text, o.slot, o.created_at
FROM w CROSS JOIN LATERAL (
    SELECT o.* FROM settle_outbox o
    WHERE o.shard = $1 AND o.xid >= pg_snapshot_xmax(w.prev) AND o.xid < pg_snapshot_xmax(w.snapshot)
        AND pg_visible_in_snapshot(o.xid, w.snapshot)
    UNION ALL
    SELECT o.* FROM pg_snapshot_xip(w.prev) AS x (xid) CROSS JOIN LATERAL (
        SELECT o.* FROM settle_outbox o
        WHERE o.shard = $1 AND o.xid = x.xid AND pg_visible_in_snapshot(o.xid, w.snapshot) OFFSET 0) o) o
WHERE (w.tick > w.floor_tick OR o.id > w.floor_id) AND (w.tick < $2 OR o.id <= $3::bigint)
ORDER BY w.tick, o.id LIMIT $4;

-- name: purge
DELETE FROM settle_outbox o USING unnest($2::smallint[], $3::text[]::xid8[], $4::bigint[]) AS u (slot, xid, id)
WHERE o.shard = $1 AND o.xid = u.xid AND o.id = u.id AND o.slot = u.slot;

-- name: raise_floor
UPDATE settle_relay SET floor_tick = $2, floor_id = $3 WHERE shard = $1 AND (floor_tick, floor_id) < ($2, $3);

-- The ticks before the one that the oldest event needs, no more than $2 at a time.
-- name: purge_ticks
DELETE FROM settle_tick WHERE shard = $1
    AND tick < (SELECT floor_tick - 1 FROM settle_relay WHERE shard = $1)
    AND tick < (SELECT min(tick) + $2 FROM settle_tick WHERE shard = $1);

-- Which shards have rows in a slot.
-- name: slot_shards
SELECT shard, count(*) FROM settle_outbox WHERE slot = $1 GROUP BY shard;

-- The last transaction in a slot, 0 when it is empty.
-- name: slot_last
SELECT coalesce((SELECT xid FROM settle_outbox WHERE slot = $1 AND shard = $2 ORDER BY xid DESC LIMIT 1), '0'::xid8)::text::bigint;

-- Below which number every transaction is settled, when everything up to a window is.
-- name: settled_below
SELECT coalesce((SELECT pg_snapshot_xmin(snapshot) FROM settle_tick WHERE shard = $1 AND tick <= $2 ORDER BY tick DESC LIMIT 1), '0'::xid8)::text::bigint;

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

-- The log begins anew: nobody writes meanwhile, and who reads is fenced.
-- name: rebase_lock
LOCK TABLE settle_outbox IN EXCLUSIVE MODE;

-- name: rebase_shards
SELECT shard FROM settle_relay UNION SELECT DISTINCT shard FROM settle_outbox ORDER BY 1;

-- What was settled up to a place ($2, $3) is given a number that the first tick shows, the rest this transaction's.
-- name: rebase_rows
WITH s AS MATERIALIZED (
    SELECT (SELECT snapshot FROM settle_tick WHERE shard = $1 AND tick = $2::bigint - 1) AS prev,
        (SELECT snapshot FROM settle_tick WHERE shard = $1 AND tick = $2) AS cur
)
UPDATE settle_outbox o SET xid = CASE
    WHEN coalesce(pg_visible_in_snapshot(o.xid, s.prev), false)
        OR o.id <= $3 AND coalesce(pg_visible_in_snapshot(o.xid, s.cur), false) THEN '2'::xid8
    ELSE pg_current_xact_id() END
FROM s WHERE o.shard = $1;

-- name: rebase_count
SELECT count(*) FROM settle_outbox WHERE shard = $1 AND xid = pg_current_xact_id();

-- name: rebase_ticks
DELETE FROM settle_tick WHERE shard = $1;

-- name: rebase_tick
INSERT INTO settle_tick (shard, tick, snapshot, lsn, at, events)
SELECT $1, $2, '3:3:', pg_current_wal_insert_lsn(), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000, 0;

-- name: rebase_relay
UPDATE settle_relay SET epoch = $2, tick = $3, id = $4, floor_tick = $5, floor_id = $6, cluster = $7,
    owner = '', expires_at = 0, fence = fence + 1
WHERE shard = $1;

-- Parked events that come again have their place in the first window.
-- name: rebase_parked
UPDATE settle_relay_parked p SET epoch = $2, tick = $3
FROM settle_outbox o
WHERE p.shard = $1 AND o.shard = $1 AND o.id = p.id AND o.event_id = p.event_id AND o.xid = pg_current_xact_id();
