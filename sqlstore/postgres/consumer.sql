-- name: take
INSERT INTO settle_position (group_name, partition, fence) VALUES ($1, $2, 1)
ON CONFLICT (group_name, partition) DO UPDATE SET fence = settle_position.fence + 1;

-- name: taken
SELECT fence, incarnation, "offset" FROM settle_position WHERE group_name = $1 AND partition = $2;

-- name: store
UPDATE settle_position SET incarnation = $4, "offset" = $5 WHERE group_name = $1 AND partition = $2 AND fence = $3;

-- name: all
SELECT partition, incarnation, "offset" FROM settle_position WHERE group_name = $1;
