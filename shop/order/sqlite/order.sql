-- Statements of package order. Those that an event runs come first: one of each kind.

-- name: select_facts
SELECT customer_id, coalesce(reference, ''), currency, total, placed_at,
       stock, payment, shipment, deadline, cancel, told, answered, version
FROM orders WHERE id = ?;

-- name: update_facts
UPDATE orders SET state = ?, stock = ?, payment = ?, shipment = ?, deadline = ?, cancel = ?, told = ?, answered = ?,
       updated_at = ?, version = version + 1
WHERE id = ? AND version = ?;

-- name: count_contradiction
UPDATE orders SET contradictions = contradictions + 1 WHERE id = ?;

-- name: insert_order
INSERT INTO orders (id, customer_id, reference, currency, total, placed_at, updated_at, state)
VALUES (?, ?, nullif(?, ''), ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING;

-- name: insert_lines
INSERT INTO order_lines (order_id, lines) VALUES (?, ?);

-- name: select_by_reference
SELECT id, currency, total, state FROM orders WHERE reference = ?;

-- name: select_returnable
SELECT o.customer_id, o.currency, o.total, o.returned, o.state, o.version, l.lines
FROM orders o JOIN order_lines l ON l.order_id = o.id WHERE o.id = ?;

-- name: select_returned_lines
SELECT lines FROM returns WHERE order_id = ?;

-- name: add_returned
UPDATE orders SET returned = returned + ?, updated_at = ?, version = version + 1 WHERE id = ? AND version = ?;

-- name: insert_return
INSERT INTO returns (id, order_id, customer_id, reference, currency, amount, created_at, updated_at, lines)
VALUES (?, nullif(?, ''), ?, nullif(?, ''), ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING;

-- name: select_return_by_reference
SELECT id, currency, amount, restocked, refunded FROM returns WHERE reference = ?;

-- name: select_return
SELECT coalesce(order_id, ''), customer_id, coalesce(reference, ''), currency, amount, restocked, refunded, lines
FROM returns WHERE id = ?;

-- name: update_return
UPDATE returns SET restocked = ?, refunded = ?, updated_at = ? WHERE id = ? AND restocked = ? AND refunded = ?;

-- name: view_order
SELECT o.id, o.customer_id, coalesce(o.reference, ''), o.currency, o.total, o.returned, o.placed_at, o.updated_at,
       o.stock, o.payment, o.shipment, o.deadline, o.cancel, o.told, o.answered, o.contradictions, l.lines
FROM orders o JOIN order_lines l ON l.order_id = o.id WHERE o.id = ?;

-- name: view_returns
SELECT id, coalesce(order_id, ''), customer_id, coalesce(reference, ''), currency, amount, created_at, restocked, refunded
FROM returns WHERE order_id = ? ORDER BY created_at, id LIMIT ?;

-- name: list_orders
SELECT id, customer_id, coalesce(reference, ''), currency, total, returned, placed_at, updated_at,
       stock, payment, shipment, deadline, cancel, told, answered, contradictions, ''
FROM orders WHERE id > ? ORDER BY id LIMIT ?;

-- name: list_returns
SELECT id, coalesce(order_id, ''), customer_id, coalesce(reference, ''), currency, amount, created_at, restocked, refunded
FROM returns WHERE id > ? ORDER BY id LIMIT ?;

-- name: list_customer_orders
SELECT id, customer_id, coalesce(reference, ''), currency, total, returned, placed_at, updated_at,
       stock, payment, shipment, deadline, cancel, told, answered, contradictions, ''
FROM orders WHERE customer_id = ? AND (placed_at, id) < (?, ?)
ORDER BY placed_at DESC, id DESC LIMIT ?;
