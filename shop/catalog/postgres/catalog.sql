-- Statements of package catalog.

-- A product's row is the lock of all that is done to it.
-- name: lock_product
SELECT currency FROM product WHERE id = $1 FOR UPDATE;

-- name: select_products
SELECT id, name, price, currency FROM product
WHERE id = ANY (ARRAY(SELECT l.value FROM json_array_elements_text($1::text::json) AS l (value)));

-- name: insert_products
INSERT INTO product (id, name, search, price, currency)
SELECT value->>'id', value->>'name', value->>'search', value->>'price', value->>'currency'
FROM json_array_elements($1::text::json) AS e (value)
ON CONFLICT (id) DO NOTHING;

-- name: update_price
UPDATE product SET price = $1 WHERE id = $2;

-- name: add_view
UPDATE product SET views = views + 1 WHERE id = $1;

-- name: add_likes
UPDATE product SET likes = likes + $1 WHERE id = $2;

-- name: insert_like
INSERT INTO product_like (product, user_id) VALUES ($1, $2) ON CONFLICT DO NOTHING;

-- name: delete_like
DELETE FROM product_like WHERE product = $1 AND user_id = $2;

-- name: list_products
SELECT id, name, price, currency, likes, views FROM product
WHERE id > $1 AND search LIKE $2 ESCAPE '!' ORDER BY id LIMIT $3;

-- name: select_product
SELECT id, name, price, currency, likes, views FROM product WHERE id = $1;
