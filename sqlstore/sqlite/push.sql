-- name: append
INSERT INTO settle_frame (event, data, feeds) VALUES (?, ?, ?) RETURNING position;

-- name: append_feed
INSERT INTO settle_frame_feed (feed, position) VALUES (?, ?) ON CONFLICT DO NOTHING;

-- name: after_all
SELECT position, event, data, feeds FROM settle_frame WHERE position > ?1 ORDER BY position LIMIT ?2;

-- name: after
SELECT f.position, f.event, f.data, f.feeds
FROM settle_frame_feed x CROSS JOIN settle_frame f ON f.position = x.position
WHERE x.feed = ?1 AND x.position > ?2 ORDER BY x.position LIMIT ?3;

-- name: bounds
SELECT (SELECT value FROM settle_meta WHERE key = 'feed_epoch'),
    coalesce((SELECT min(position) FROM settle_frame), 0),
    max(coalesce((SELECT max(position) FROM settle_frame), 0),
        coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'settle_frame'), 0));

-- name: trim_feed
DELETE FROM settle_frame_feed WHERE (feed, position) IN (
    SELECT j.value, f.position FROM settle_frame f CROSS JOIN json_each(f.feeds) j WHERE f.position <= ?1);

-- name: trim
DELETE FROM settle_frame WHERE position <= ?1;
