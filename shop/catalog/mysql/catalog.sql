-- Statements of package catalog.

-- A product's row is the lock of all that is done to it.
-- name: lock_product
SELECT currency FROM product WHERE id = ?1 FOR UPDATE;

-- name: select_products
SELECT p.id, p.name, p.price, p.currency
FROM (SELECT DISTINCT CAST(t.id AS BINARY) AS id
      FROM JSON_TABLE(?1, '$[*]' COLUMNS (id VARCHAR(255) CHARACTER SET utf8mb4 PATH '$')) AS t) AS l
STRAIGHT_JOIN product AS p ON p.id = l.id;

-- name: insert_products
INSERT INTO product (id, name, search, price, currency)
SELECT l.id, l.name, l.search, l.price, l.currency
FROM JSON_TABLE(?1, '$[*]' COLUMNS (
    id       VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.id',
    name     TEXT CHARACTER SET utf8mb4 PATH '$.name',
    search   TEXT CHARACTER SET utf8mb4 PATH '$.search',
    price    VARCHAR(64) CHARACTER SET utf8mb4 PATH '$.price',
    currency VARCHAR(8) CHARACTER SET utf8mb4 PATH '$.currency'
)) AS l
ON DUPLICATE KEY UPDATE id = product.id;

-- name: update_price
UPDATE product SET price = ?1 WHERE id = ?2;

-- name: add_view
UPDATE product SET views = views + 1 WHERE id = ?1;

-- name: add_likes
UPDATE product SET likes = likes + ?1 WHERE id = ?2;

-- name: insert_like
INSERT INTO product_like (product, user_id) VALUES (?1, ?2) ON DUPLICATE KEY UPDATE repeats = repeats + 1;

-- name: delete_like
DELETE FROM product_like WHERE product = ?1 AND user_id = ?2;

-- name: list_products
SELECT id, name, price, currency, likes, views FROM product
WHERE id > ?1 AND search LIKE ?2 ESCAPE '!' ORDER BY id LIMIT ?3;

-- name: select_product
SELECT id, name, price, currency, likes, views FROM product WHERE id = ?1;
