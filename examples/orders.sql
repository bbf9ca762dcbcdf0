-- The business table of the examples. The outbox is made by: settle migrate up --store "$DATABASE_URL"
CREATE TABLE IF NOT EXISTS orders (
    id      text    PRIMARY KEY,
    product text    NOT NULL,
    qty     integer NOT NULL CHECK (qty > 0),
    state   text    NOT NULL
);
