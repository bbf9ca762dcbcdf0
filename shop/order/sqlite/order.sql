-- Statements of package order. Those that an event runs come first: one of each kind.

-- name: select_facts
SELECT customer_id, coalesce(reference, ''), currency, total, placed_at,
       stock, payment, shipment, deadline, cancel, told, answered, version
FROM orders WHERE id = ?1;

-- name: update_facts
UPDATE orders SET state = ?1, stock = ?2, payment = ?3, shipment = ?4, deadline = ?5, cancel = ?6, told = ?7, answered = ?8,
       updated_at = ?9, version = version + 1
WHERE id = ?10 AND version = ?11;

-- name: count_contradiction
UPDATE orders SET contradictions = contradictions + 1 WHERE id = ?1;

-- name: insert_order
INSERT INTO orders (id, customer_id, reference, currency, total, placed_at, updated_at, state)
VALUES (?1, ?2, nullif(?3, ''), ?4, ?5, ?6, ?7, ?8)
ON CONFLICT DO NOTHING;

-- name: insert_lines
INSERT INTO order_lines (order_id, lines) VALUES (?1, ?2);

-- name: select_by_reference
SELECT id, currency, total, state FROM orders WHERE reference = ?1;

-- name: select_returnable
SELECT o.customer_id, o.currency, o.total, o.returned, o.state, o.version, l.lines
FROM orders o JOIN order_lines l ON l.order_id = o.id WHERE o.id = ?1;

-- name: select_returned_lines
SELECT lines FROM returns WHERE order_id = ?1;

-- name: add_returned
UPDATE orders SET returned = returned + ?1, updated_at = ?2, version = version + 1 WHERE id = ?3 AND version = ?4;

-- name: insert_return
INSERT INTO returns (id, order_id, customer_id, reference, currency, amount, created_at, updated_at, lines)
VALUES (?1, nullif(?2, ''), ?3, nullif(?4, ''), ?5, ?6, ?7, ?8, ?9)
ON CONFLICT DO NOTHING;

-- name: select_return_by_reference
SELECT id, currency, amount, restocked, refunded FROM returns WHERE reference = ?1;

-- name: select_return
SELECT coalesce(order_id, ''), customer_id, coalesce(reference, ''), currency, amount, restocked, refunded, lines
FROM returns WHERE id = ?1;

-- name: update_return
UPDATE returns SET restocked = ?1, refunded = ?2, updated_at = ?3 WHERE id = ?4 AND restocked = ?5 AND refunded = ?6;

-- name: view_order
SELECT o.id, o.customer_id, coalesce(o.reference, ''), o.currency, o.total, o.returned, o.placed_at, o.updated_at,
       o.stock, o.payment, o.shipment, o.deadline, o.cancel, o.told, o.answered, o.contradictions, l.lines
FROM orders o JOIN order_lines l ON l.order_id = o.id WHERE o.id = ?1;

-- name: view_returns
SELECT id, coalesce(order_id, ''), customer_id, coalesce(reference, ''), currency, amount, created_at, restocked, refunded
FROM returns WHERE order_id = ?1 ORDER BY created_at, id LIMIT ?2;

-- name: list_orders
SELECT id, customer_id, coalesce(reference, ''), currency, total, returned, placed_at, updated_at,
       stock, payment, shipment, deadline, cancel, told, answered, contradictions, ''
FROM orders WHERE id > ?1 ORDER BY id LIMIT ?2;

-- name: list_returns
SELECT id, coalesce(order_id, ''), customer_id, coalesce(reference, ''), currency, amount, created_at, restocked, refunded
FROM returns WHERE id > ?1 ORDER BY id LIMIT ?2;

-- name: list_customer_orders
SELECT id, customer_id, coalesce(reference, ''), currency, total, returned, placed_at, updated_at,
       stock, payment, shipment, deadline, cancel, told, answered, contradictions, ''
FROM orders WHERE customer_id = ?1 AND (placed_at, id) < (?2, ?3)
ORDER BY placed_at DESC, id DESC LIMIT ?4;
