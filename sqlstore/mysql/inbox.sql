-- name: group_add
INSERT INTO settle_inbox_group (name) VALUES (?1) ON DUPLICATE KEY UPDATE name = name;

-- name: groups
SELECT id, name FROM settle_inbox_group;

-- name: group
SELECT id FROM settle_inbox_group WHERE name = ?1;

-- Which of the identities in a JSON array the group has remembered.
-- name: known
SELECT i.event_id FROM JSON_TABLE(?2, '$[*]' COLUMNS (id CHAR(32) PATH '$')) j
JOIN settle_inbox i ON i.group_id = ?1 AND i.event_id = UNHEX(j.id);

-- Sorted, so that two batches wait for one another and never both.
-- name: remember
INSERT INTO settle_inbox (group_id, event_id, at, timed)
SELECT ?1, UNHEX(j.id), ?2, j.timed
FROM JSON_TABLE(?3, '$[*]' COLUMNS (id CHAR(32) PATH '$.id', timed BOOLEAN PATH '$.timed')) j ORDER BY j.id;

-- Whatever was remembered before ?3 and is timed lies below ?2.
-- name: forget_timed
DELETE FROM settle_inbox WHERE group_id = ?1 AND event_id < ?2 AND at < ?3 AND timed ORDER BY event_id LIMIT ?4;

-- name: forget_untimed
DELETE FROM settle_inbox WHERE untimed_at < ?1 ORDER BY untimed_at LIMIT ?2;
