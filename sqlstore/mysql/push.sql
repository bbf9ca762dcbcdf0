-- name: number
UPDATE settle_feed SET `last` = `last` + ?1 WHERE id = 1;

-- The frames of one number count down to it.
-- name: append
INSERT INTO settle_frame (event, data, feeds, position)
SELECT ?1, ?2, ?3, `last` - ?4 FROM settle_feed WHERE id = 1;

-- name: append_feed
INSERT INTO settle_frame_feed (feed, position)
SELECT ?1, `last` - ?2 FROM settle_feed WHERE id = 1 ON DUPLICATE KEY UPDATE settle_frame_feed.feed = settle_frame_feed.feed;

-- name: after_all
SELECT position, event, data, feeds FROM settle_frame WHERE position > ?1 ORDER BY position LIMIT ?2;

-- name: after
SELECT f.position, f.event, f.data, f.feeds
FROM settle_frame_feed x JOIN settle_frame f ON f.position = x.position
WHERE x.feed = ?1 AND x.position > ?2 ORDER BY x.position LIMIT ?3;

-- name: bounds
SELECT epoch, coalesce((SELECT min(position) FROM settle_frame), 0), `last` FROM settle_feed WHERE id = 1;

-- name: trim_feed
DELETE FROM settle_frame_feed WHERE position <= ?1;

-- name: trim
DELETE FROM settle_frame WHERE position <= ?1;
