-- What inventory owns. A product's place in the books: initial - sold + returned = free + reserved,
-- where sold, reserved and returned follow from the ledger below, so that rows and ledger check one another.
CREATE TABLE stock (
    product  TEXT PRIMARY KEY,
    initial  INTEGER NOT NULL CHECK (initial >= 0),
    free     INTEGER NOT NULL CHECK (free >= 0)
) WITHOUT ROWID;

-- One row an order: the arbiter of its stock, and its line in the movements ledger.
CREATE TABLE reservation (
    order_id TEXT PRIMARY KEY,
    state    TEXT NOT NULL CHECK (state IN ('RESERVED', 'FAILED', 'RELEASED', 'COMMITTED')),
    lines    TEXT NOT NULL, -- [["product", units], ...]
    short    TEXT NOT NULL DEFAULT '[]', -- products there was not enough of
    at       INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE stock_return (
    return_id TEXT PRIMARY KEY,
    lines     TEXT NOT NULL,
    at        INTEGER NOT NULL
) WITHOUT ROWID;
