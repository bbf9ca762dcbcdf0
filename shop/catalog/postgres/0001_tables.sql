-- What the catalogue owns. Likes are rows, so that a like is one however often it is given.
CREATE TABLE product (
    id       text COLLATE "C" PRIMARY KEY,
    name     text NOT NULL,
    search   text NOT NULL, -- id and name in lower case
    price    text NOT NULL, -- decimal
    currency text NOT NULL,
    views    bigint NOT NULL DEFAULT 0,
    likes    bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 80);

CREATE TABLE product_like (
    product text COLLATE "C" NOT NULL REFERENCES product (id),
    user_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (product, user_id)
);
