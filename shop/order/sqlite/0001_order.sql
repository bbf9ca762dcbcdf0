-- What order owns. An order's row is small, because every event of the order rewrites it: its lines, which
-- never change, stand beside it. told and answered are the bit sets of order.Told.
CREATE TABLE IF NOT EXISTS orders (
    id             TEXT PRIMARY KEY,
    customer_id    TEXT NOT NULL,
    reference      TEXT,             -- of an imported order, unique outside
    currency       TEXT NOT NULL,
    total          INTEGER NOT NULL CHECK (total > 0),  -- minor units, as every amount
    returned       INTEGER NOT NULL DEFAULT 0 CHECK (returned BETWEEN 0 AND total),
    placed_at      INTEGER NOT NULL, -- milliseconds since 1970, as every time
    updated_at     INTEGER NOT NULL,
    state          TEXT NOT NULL CHECK (state IN ('PENDING', 'STOCK_RESERVED', 'PAYMENT_IN_PROGRESS', 'PAID',
                                                  'COMPLETED', 'CANCELING', 'CANCELED')),
    stock          TEXT NOT NULL DEFAULT '' CHECK (stock IN ('', 'RESERVED', 'FAILED', 'COMMITTED')),
    payment        TEXT NOT NULL DEFAULT '' CHECK (payment IN ('', 'AUTHORIZED', 'FAILED', 'CAPTURED', 'CAPTURE_FAILED')),
    shipment       TEXT NOT NULL DEFAULT '' CHECK (shipment IN ('', 'CREATED', 'FAILED', 'CANCELED')),
    deadline       TEXT NOT NULL DEFAULT '' CHECK (deadline IN ('', 'DELAYED', 'EXPIRED')),
    cancel         TEXT NOT NULL DEFAULT '', -- why it is to be canceled
    told           INTEGER NOT NULL DEFAULT 0,
    answered       INTEGER NOT NULL DEFAULT 0 CHECK (answered & ~told = 0),
    contradictions INTEGER NOT NULL DEFAULT 0,
    version        INTEGER NOT NULL DEFAULT 1,
    CHECK (state <> 'COMPLETED' OR (stock = 'COMMITTED' AND payment = 'CAPTURED')),
    CHECK (state <> 'CANCELED' OR (cancel <> '' AND stock <> 'COMMITTED' AND payment NOT IN ('CAPTURED', 'CAPTURE_FAILED')))
) WITHOUT ROWID;

CREATE UNIQUE INDEX IF NOT EXISTS orders_reference ON orders (reference) WHERE reference IS NOT NULL;
CREATE INDEX IF NOT EXISTS orders_customer ON orders (customer_id, placed_at, id);

-- The lines as one JSON array in the order of the request: they are written once and read together.
CREATE TABLE IF NOT EXISTS order_lines (
    order_id TEXT PRIMARY KEY REFERENCES orders (id),
    lines    TEXT NOT NULL
);

-- Returns of an order, and imported ones of none.
CREATE TABLE IF NOT EXISTS returns (
    id          TEXT PRIMARY KEY,
    order_id    TEXT REFERENCES orders (id),
    customer_id TEXT NOT NULL,
    reference   TEXT,
    currency    TEXT NOT NULL,
    amount      INTEGER NOT NULL CHECK (amount > 0),
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    restocked   INTEGER NOT NULL DEFAULT 0 CHECK (restocked IN (0, 1)),
    refunded    INTEGER NOT NULL DEFAULT 0 CHECK (refunded IN (0, 1)),
    lines       TEXT NOT NULL
) WITHOUT ROWID;

CREATE UNIQUE INDEX IF NOT EXISTS returns_reference ON returns (reference) WHERE reference IS NOT NULL;
CREATE INDEX IF NOT EXISTS returns_order ON returns (order_id) WHERE order_id IS NOT NULL;
