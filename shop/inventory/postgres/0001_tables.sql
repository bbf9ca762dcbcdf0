-- What inventory owns. A product's place in the books: initial - sold + returned = free + reserved,
-- where sold, reserved and returned follow from the ledger below, so that rows and ledger check one another.
CREATE TABLE stock (
    product  text COLLATE "C" PRIMARY KEY,
    initial  bigint NOT NULL CHECK (initial >= 0),
    free     bigint NOT NULL CHECK (free >= 0)
) WITH (fillfactor = 50); -- Every order rewrites its products' rows: room in the page keeps the index out of it.

-- One row an order: the arbiter of its stock, and its line in the movements ledger.
CREATE TABLE reservation (
    order_id text COLLATE "C" PRIMARY KEY,
    state    text NOT NULL CHECK (state IN ('RESERVED', 'FAILED', 'RELEASED', 'COMMITTED')),
    lines    text NOT NULL, -- [["product", units], ...]
    short    text NOT NULL DEFAULT '[]', -- products there was not enough of
    at       bigint NOT NULL
);

CREATE TABLE stock_return (
    return_id text COLLATE "C" PRIMARY KEY,
    lines     text NOT NULL,
    at        bigint NOT NULL
);
