-- Statements of package platform.

-- name: insert_delivery
INSERT INTO delivery (event_id, order_id, state, at) VALUES ($1, $2, 'PENDING', $3) ON CONFLICT DO NOTHING;

-- name: finish_delivery
UPDATE delivery SET state = $1 WHERE event_id = $2;

-- name: list_deliveries
SELECT event_id, order_id, state FROM delivery WHERE event_id > $1 ORDER BY event_id LIMIT $2;
