-- name: group_add
INSERT INTO settle_inbox_group (name) VALUES ($1) ON CONFLICT DO NOTHING;

-- name: groups
SELECT id, name FROM settle_inbox_group;

-- name: group
SELECT id FROM settle_inbox_group WHERE name = $1;

-- Sorted, so that two batches wait for one another and never both.
-- name: remember
INSERT INTO settle_inbox (group_id, event_id, at, timed)
SELECT $1, u.id, $2, u.timed FROM unnest($3::uuid[], $4::boolean[]) AS u (id, timed) ORDER BY u.id
ON CONFLICT DO NOTHING RETURNING event_id;

-- Whatever was remembered before $3 and is timed lies below $2.
-- name: forget_timed
DELETE FROM settle_inbox WHERE group_id = $1 AND event_id IN (
    SELECT event_id FROM settle_inbox
    WHERE group_id = $1 AND event_id < $2 AND at < $3 AND timed ORDER BY event_id LIMIT $4);

-- name: forget_untimed
DELETE FROM settle_inbox WHERE (group_id, event_id) IN (
    SELECT group_id, event_id FROM settle_inbox WHERE NOT timed AND at < $1 ORDER BY at LIMIT $2);
