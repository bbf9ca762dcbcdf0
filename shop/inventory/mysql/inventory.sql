-- Statements of package inventory. The lines of an order travel as one JSON array, [["product", units], ...],
-- sorted by product, so that an order of many lines is one statement and two orders lock rows in one order.
-- STRAIGHT_JOIN, because rows are locked as they are read: in the order of the array.

-- name: select_reservation
SELECT state, `lines` FROM reservation WHERE order_id = ?1 FOR UPDATE;

-- name: insert_reservation
INSERT INTO reservation (order_id, state, `lines`, short, at) VALUES (?1, ?2, ?3, '[]', ?4)
ON DUPLICATE KEY UPDATE repeats = repeats + 1;

-- name: update_reservation
UPDATE reservation SET state = ?1 WHERE order_id = ?2 AND state = ?3;

-- name: short_reservation
UPDATE reservation SET state = ?1, short = ?2 WHERE order_id = ?3 AND state = ?4;

-- name: lock_stock
SELECT s.product, s.free
FROM JSON_TABLE(?1, '$[*]' COLUMNS (product VARCHAR(255) CHARACTER SET utf8mb4 PATH '$[0]')) AS l
STRAIGHT_JOIN stock AS s ON s.product = l.product
FOR UPDATE;

-- name: take_stock
UPDATE JSON_TABLE(?1, '$[*]' COLUMNS (product VARCHAR(255) CHARACTER SET utf8mb4 PATH '$[0]', units BIGINT PATH '$[1]')) AS l
STRAIGHT_JOIN stock AS s ON s.product = l.product
SET s.free = s.free - l.units
WHERE s.free >= l.units;

-- name: give_stock
INSERT INTO stock (product, initial, free)
SELECT l.product, 0, l.units
FROM JSON_TABLE(?1, '$[*]' COLUMNS (product VARCHAR(255) CHARACTER SET utf8mb4 PATH '$[0]', units BIGINT PATH '$[1]')) AS l
ON DUPLICATE KEY UPDATE free = stock.free + VALUES(free);

-- name: insert_return
INSERT INTO stock_return (return_id, `lines`, at) VALUES (?1, ?2, ?3)
ON DUPLICATE KEY UPDATE repeats = repeats + 1;

-- name: seed_stock
INSERT INTO stock (product, initial, free)
SELECT l.product, l.units, l.units
FROM JSON_TABLE(?1, '$[*]' COLUMNS (product VARCHAR(255) CHARACTER SET utf8mb4 PATH '$[0]', units BIGINT PATH '$[1]')) AS l
ON DUPLICATE KEY UPDATE product = stock.product;

-- name: select_free
SELECT s.product, s.free
FROM (SELECT DISTINCT CAST(t.product AS BINARY) AS product
      FROM JSON_TABLE(?1, '$[*]' COLUMNS (product VARCHAR(255) CHARACTER SET utf8mb4 PATH '$')) AS t) AS l
STRAIGHT_JOIN stock AS s ON s.product = l.product;

-- The ledger's sums are made from the orders' rows, not from the stock's: the two check one another.
-- name: list_stock
SELECT s.product, s.initial, s.free, CAST(coalesce(m.reserved, 0) AS SIGNED), CAST(coalesce(m.sold, 0) AS SIGNED),
       CAST(coalesce(r.returned, 0) AS SIGNED)
FROM (SELECT * FROM stock WHERE product > ?1 ORDER BY product LIMIT ?2) AS s
LEFT JOIN (
    SELECT CAST(l.product AS BINARY) AS product,
           sum(CASE WHEN state = 'RESERVED' THEN l.units ELSE 0 END) AS reserved,
           sum(CASE WHEN state = 'COMMITTED' THEN l.units ELSE 0 END) AS sold
    FROM reservation,
         JSON_TABLE(`lines`, '$[*]' COLUMNS (product VARCHAR(255) CHARACTER SET utf8mb4 PATH '$[0]', units BIGINT PATH '$[1]')) AS l
    WHERE state IN ('RESERVED', 'COMMITTED') GROUP BY 1
) AS m ON m.product = s.product
LEFT JOIN (
    SELECT CAST(l.product AS BINARY) AS product, sum(l.units) AS returned
    FROM stock_return,
         JSON_TABLE(`lines`, '$[*]' COLUMNS (product VARCHAR(255) CHARACTER SET utf8mb4 PATH '$[0]', units BIGINT PATH '$[1]')) AS l
    GROUP BY 1
) AS r ON r.product = s.product
ORDER BY s.product;

-- name: list_movements
SELECT order_id, state, short FROM reservation WHERE order_id > ?1 ORDER BY order_id LIMIT ?2;
