-- What the catalogue owns. Likes are rows, so that a like is one however often it is given.
CREATE TABLE product (
    id       TEXT PRIMARY KEY,
    name     TEXT NOT NULL,
    search   TEXT NOT NULL, -- id and name in lower case
    price    TEXT NOT NULL, -- decimal
    currency TEXT NOT NULL,
    views    INTEGER NOT NULL DEFAULT 0,
    likes    INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

CREATE TABLE product_like (
    product TEXT NOT NULL REFERENCES product (id),
    user_id TEXT NOT NULL,
    PRIMARY KEY (product, user_id)
) WITHOUT ROWID;
