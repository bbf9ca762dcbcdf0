-- name: take
INSERT INTO settle_position (group_name, `partition`, fence) VALUES (?1, ?2, 1)
ON DUPLICATE KEY UPDATE fence = fence + 1;

-- name: taken
SELECT fence, incarnation, `offset` FROM settle_position WHERE group_name = ?1 AND `partition` = ?2;

-- A row that is written as it was counts as not affected, unless the client asks for rows found: it must change.
-- name: store
UPDATE settle_position SET incarnation = ?4, `offset` = ?5, stored = stored + 1
WHERE group_name = ?1 AND `partition` = ?2 AND fence = ?3;

-- name: all
SELECT `partition`, incarnation, `offset` FROM settle_position WHERE group_name = ?1;
