-- Statements of package payment.

-- name: select_payment
SELECT state, minor, currency FROM payment WHERE order_id = ?1;

-- name: insert_payment
INSERT INTO payment (order_id, state, minor, currency, at) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING;

-- name: update_payment
UPDATE payment SET state = ?1, code = ?2 WHERE order_id = ?3 AND state = ?4;

-- name: insert_refund
INSERT INTO refund (return_id, order_id, state, minor, currency, at) VALUES (?1, ?2, 'REQUESTED', ?3, ?4, ?5) ON CONFLICT DO NOTHING;

-- name: update_refund
UPDATE refund SET state = ?1, code = ?2 WHERE return_id = ?3 AND state = 'REQUESTED';

-- name: list_payments
SELECT order_id, state, minor, currency, code FROM payment WHERE order_id > ?1 ORDER BY order_id LIMIT ?2;

-- name: list_refunds
SELECT return_id, order_id, state, minor, currency, code FROM refund WHERE return_id > ?1 ORDER BY return_id LIMIT ?2;

-- name: select_open
SELECT 1 FROM payment WHERE order_id = ?1 AND state = 'REQUESTED';

-- name: insert_webhook
INSERT INTO webhook (id, at) VALUES (?1, ?2) ON CONFLICT DO NOTHING;
