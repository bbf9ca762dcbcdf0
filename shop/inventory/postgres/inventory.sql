-- Statements of package inventory. The lines of an order travel as one JSON array, [["product", units], ...],
-- sorted by product, so that an order of many lines is one statement and two orders lock rows in one order.

-- name: select_reservation
SELECT state, lines FROM reservation WHERE order_id = $1 FOR UPDATE;

-- name: insert_reservation
INSERT INTO reservation (order_id, state, lines, short, at) VALUES ($1, $2, $3, '[]', $4) ON CONFLICT DO NOTHING;

-- name: update_reservation
UPDATE reservation SET state = $1 WHERE order_id = $2 AND state = $3;

-- name: short_reservation
UPDATE reservation SET state = $1, short = $2 WHERE order_id = $3 AND state = $4;

-- An array, because its members are looked up in the index and come out of it sorted.
-- name: lock_stock
SELECT product, free FROM stock
WHERE product = ANY (ARRAY(SELECT l.value->>0 FROM json_array_elements($1::text::json) AS l (value)))
ORDER BY product FOR UPDATE;

-- name: take_stock
UPDATE stock SET free = stock.free - l.units
FROM (SELECT value->>0 AS product, (value->>1)::bigint AS units FROM json_array_elements($1::text::json) AS e (value)) AS l
WHERE stock.product = l.product AND stock.free >= l.units;

-- name: give_stock
INSERT INTO stock (product, initial, free)
SELECT value->>0, 0, (value->>1)::bigint FROM json_array_elements($1::text::json) AS e (value)
ON CONFLICT (product) DO UPDATE SET free = stock.free + excluded.free;

-- name: insert_return
INSERT INTO stock_return (return_id, lines, at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING;

-- name: seed_stock
INSERT INTO stock (product, initial, free)
SELECT value->>0, (value->>1)::bigint, (value->>1)::bigint FROM json_array_elements($1::text::json) AS e (value)
ON CONFLICT (product) DO NOTHING;

-- name: select_free
SELECT product, free FROM stock
WHERE product = ANY (ARRAY(SELECT l.value FROM json_array_elements_text($1::text::json) AS l (value)));

-- The ledger's sums are made from the orders' rows, not from the stock's: the two check one another.
-- name: list_stock
SELECT s.product, s.initial, s.free,
       coalesce(m.reserved, 0)::bigint, coalesce(m.sold, 0)::bigint, coalesce(r.returned, 0)::bigint
FROM (SELECT * FROM stock WHERE product > $1 ORDER BY product LIMIT $2) AS s
LEFT JOIN (
    SELECT l.value->>0 AS product,
           sum(CASE WHEN state = 'RESERVED' THEN (l.value->>1)::bigint ELSE 0 END) AS reserved,
           sum(CASE WHEN state = 'COMMITTED' THEN (l.value->>1)::bigint ELSE 0 END) AS sold
    FROM reservation, json_array_elements(lines::json) AS l (value)
    WHERE state IN ('RESERVED', 'COMMITTED') GROUP BY 1
) AS m ON m.product = s.product
LEFT JOIN (
    SELECT l.value->>0 AS product, sum((l.value->>1)::bigint) AS returned
    FROM stock_return, json_array_elements(lines::json) AS l (value) GROUP BY 1
) AS r ON r.product = s.product
ORDER BY s.product;

-- name: list_movements
SELECT order_id, state, short FROM reservation WHERE order_id > $1 ORDER BY order_id LIMIT $2;
