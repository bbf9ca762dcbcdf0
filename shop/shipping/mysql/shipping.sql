-- Statements of package shipping.

-- name: select_shipment
SELECT state FROM shipment WHERE order_id = ?1 FOR UPDATE;

-- name: insert_shipment
INSERT INTO shipment (order_id, state, at) VALUES (?1, ?2, ?3) ON DUPLICATE KEY UPDATE repeats = repeats + 1;

-- name: update_shipment
UPDATE shipment SET state = ?1, at = ?2 WHERE order_id = ?3 AND state = ?4;
