-- Statements of package notify.

-- name: insert_message
INSERT INTO message (event_id, order_id, state, at) VALUES ($1, $2, 'PENDING', $3) ON CONFLICT DO NOTHING;

-- name: finish_message
UPDATE message SET state = $1 WHERE event_id = $2;

-- name: list_messages
SELECT event_id, order_id, state FROM message WHERE event_id > $1 ORDER BY event_id LIMIT $2;
