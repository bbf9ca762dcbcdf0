-- What the catalogue owns. Likes are rows, so that a like is one however often it is given. Names that come
-- from outside are bytes, because a character column takes "a" and "a " for the same; IF NOT EXISTS, because
-- DDL commits by itself here and a migration that was cut off is repeated; repeats is changed by a repeated
-- insert, which so counts as two rows affected.
CREATE TABLE IF NOT EXISTS product (
    id       VARBINARY(255) PRIMARY KEY,
    name     TEXT NOT NULL,
    search   TEXT NOT NULL, -- id and name in lower case
    price    VARCHAR(64) NOT NULL, -- decimal
    currency VARCHAR(8) NOT NULL,
    views    BIGINT NOT NULL DEFAULT 0,
    likes    BIGINT NOT NULL DEFAULT 0
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS product_like (
    product VARBINARY(255) NOT NULL,
    user_id VARBINARY(64) NOT NULL,
    repeats BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (product, user_id),
    FOREIGN KEY (product) REFERENCES product (id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
