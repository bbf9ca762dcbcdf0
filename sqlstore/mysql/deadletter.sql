-- The lane as it is now decides: a WAITING head would wait for ever, a follower that is tried on its own
-- would overtake.
-- name: park
INSERT INTO settle_letter (group_name, event_id, type, version, topic, aggregate_type, aggregate_id, occurred_at,
    trace_parent, correlation_id, causation_id, idempotency_key, producer, data, `partition`, position,
    state, attempts, first_at, last_at, next_at, cause, stack, permanent)
SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16,
    CASE WHEN n.lane THEN 'WAITING' WHEN ?17 = 'WAITING' THEN 'RETRYING' ELSE ?17 END, ?18, ?19, ?20,
    CASE WHEN NOT n.lane AND ?17 = 'WAITING' THEN ?25 ELSE ?21 END, ?22, ?23, ?24
FROM (SELECT EXISTS (SELECT 1 FROM settle_letter WHERE group_name = ?1 AND topic = ?5 AND aggregate_id = ?7) AS lane) n
ON DUPLICATE KEY UPDATE seq = settle_letter.seq;

-- A row that is written as it was counts as not affected, unless the client asks for rows found: it must change.
-- name: update
UPDATE settle_letter SET state = ?3, attempts = ?4, first_at = ?5, last_at = ?6, next_at = ?7, cause = ?8,
    stack = ?9, permanent = ?10, data = ?11,
    changed = changed + 1
WHERE group_name = ?1 AND event_id = ?2;

-- name: lane
SELECT topic, aggregate_id FROM settle_letter WHERE group_name = ?1 AND event_id = ?2 FOR UPDATE;

-- Whoever holds a lane's head is the only one to change the lane. By the index, however few letters there are: a
-- scan would wait for other lanes.
-- name: head
SELECT seq FROM settle_letter FORCE INDEX (settle_letter_lane) WHERE group_name = ?1 AND topic = ?2 AND aggregate_id = ?3 ORDER BY seq LIMIT 1 FOR UPDATE;

-- name: first
SELECT seq FROM settle_letter WHERE group_name = ?1 AND topic = ?2 AND aggregate_id = ?3 ORDER BY seq LIMIT 1;

-- name: remove
DELETE FROM settle_letter WHERE group_name = ?1 AND event_id = ?2;

-- The first letter of a lane is its head; it waits no longer.
-- name: promote
UPDATE settle_letter SET state = 'RETRYING', next_at = ?4
WHERE seq = (SELECT h.seq FROM (
        SELECT min(seq) AS seq FROM settle_letter WHERE group_name = ?1 AND topic = ?2 AND aggregate_id = ?3) h)
    AND state = 'WAITING';

-- name: lanes
SELECT DISTINCT topic, aggregate_id FROM settle_letter WHERE group_name = ?1;

-- name: select_one
SELECT seq, group_name, event_id, type, version, topic, aggregate_type, aggregate_id, occurred_at,
    trace_parent, correlation_id, causation_id, idempotency_key, producer, data, `partition`, position,
    state, attempts, first_at, last_at, next_at, cause, stack, permanent
FROM settle_letter WHERE group_name = ?1 AND event_id = ?2;

-- name: select_due
SELECT seq, group_name, event_id, type, version, topic, aggregate_type, aggregate_id, occurred_at,
    trace_parent, correlation_id, causation_id, idempotency_key, producer, data, `partition`, position,
    state, attempts, first_at, last_at, next_at, cause, stack, permanent
FROM settle_letter
WHERE group_name = ?1 AND state = 'RETRYING' AND next_at <= ?8 AND seq > ?6
    AND (?2 = '' OR topic = ?2) AND (?3 = '' OR aggregate_id = ?3) AND (?4 = '' OR cause = ?4)
    AND (?5 = '' OR state = ?5)
ORDER BY seq LIMIT ?7;

-- name: select_lane
SELECT seq, group_name, event_id, type, version, topic, aggregate_type, aggregate_id, occurred_at,
    trace_parent, correlation_id, causation_id, idempotency_key, producer, data, `partition`, position,
    state, attempts, first_at, last_at, next_at, cause, stack, permanent
FROM settle_letter
WHERE group_name = ?1 AND topic = ?2 AND aggregate_id = ?3 AND seq > ?6
    AND (?4 = '' OR cause = ?4) AND (?5 = '' OR state = ?5)
    AND (?8 = 0 OR (state = 'RETRYING' AND next_at <= ?8))
ORDER BY seq LIMIT ?7;

-- name: select_any
SELECT seq, group_name, event_id, type, version, topic, aggregate_type, aggregate_id, occurred_at,
    trace_parent, correlation_id, causation_id, idempotency_key, producer, data, `partition`, position,
    state, attempts, first_at, last_at, next_at, cause, stack, permanent
FROM settle_letter
WHERE seq > ?6 AND (?1 = '' OR group_name = ?1) AND (?2 = '' OR topic = ?2) AND (?3 = '' OR aggregate_id = ?3)
    AND (?4 = '' OR cause = ?4) AND (?5 = '' OR state = ?5)
    AND (?8 = 0 OR (state = 'RETRYING' AND next_at <= ?8))
    AND (?9 IS NULL OR event_id = ?9)
ORDER BY seq LIMIT ?7;

-- name: seq
SELECT seq FROM settle_letter WHERE group_name = ?1 AND event_id = ?2;

-- name: groups
SELECT group_name, topic, cause, state, count(*), min(first_at), max(last_at)
FROM settle_letter GROUP BY group_name, topic, cause, state ORDER BY group_name, topic, count(*) DESC, cause;

-- name: audit
INSERT INTO settle_audit (at, operator, action, letter, note) VALUES (?1, ?2, ?3, ?4, ?5);

-- name: entries
SELECT at, operator, action, letter, note FROM settle_audit ORDER BY id DESC LIMIT ?1;
