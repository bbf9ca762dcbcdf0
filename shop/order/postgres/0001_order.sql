-- What order owns. An order's row is small, because every event of the order rewrites it: its lines, which
-- never change, stand beside it. told and answered are the bit sets of order.Told.
CREATE TABLE orders (
    id             text COLLATE "C" PRIMARY KEY,
    customer_id    text COLLATE "C" NOT NULL,
    reference      text COLLATE "C", -- of an imported order, unique outside
    currency       text NOT NULL,
    total          bigint NOT NULL CHECK (total > 0),  -- minor units, as every amount
    returned       bigint NOT NULL DEFAULT 0 CHECK (returned BETWEEN 0 AND total),
    placed_at      bigint NOT NULL, -- milliseconds since 1970, as every time
    updated_at     bigint NOT NULL,
    state          text NOT NULL CHECK (state IN ('PENDING', 'STOCK_RESERVED', 'PAYMENT_IN_PROGRESS', 'PAID',
                                                  'COMPLETED', 'CANCELING', 'CANCELED')),
    stock          text NOT NULL DEFAULT '' CHECK (stock IN ('', 'RESERVED', 'FAILED', 'COMMITTED')),
    payment        text NOT NULL DEFAULT '' CHECK (payment IN ('', 'AUTHORIZED', 'FAILED', 'CAPTURED', 'CAPTURE_FAILED')),
    shipment       text NOT NULL DEFAULT '' CHECK (shipment IN ('', 'CREATED', 'FAILED', 'CANCELED')),
    deadline       text NOT NULL DEFAULT '' CHECK (deadline IN ('', 'DELAYED', 'EXPIRED')),
    cancel         text NOT NULL DEFAULT '', -- why it is to be canceled
    told           bigint NOT NULL DEFAULT 0,
    answered       bigint NOT NULL DEFAULT 0 CHECK (answered & ~told = 0),
    contradictions bigint NOT NULL DEFAULT 0,
    version        bigint NOT NULL DEFAULT 1,
    CHECK (state <> 'COMPLETED' OR (stock = 'COMMITTED' AND payment = 'CAPTURED')),
    CHECK (state <> 'CANCELED' OR (cancel <> '' AND stock <> 'COMMITTED' AND payment NOT IN ('CAPTURED', 'CAPTURE_FAILED')))
) WITH (fillfactor = 70); -- Room in the page for the next versions of the row keeps the indexes out of an update.

CREATE UNIQUE INDEX orders_reference ON orders (reference) WHERE reference IS NOT NULL;
CREATE INDEX orders_customer ON orders (customer_id, placed_at, id);

-- The lines as one JSON array in the order of the request: they are written once and read together.
CREATE TABLE order_lines (
    order_id text COLLATE "C" PRIMARY KEY REFERENCES orders (id),
    lines    text NOT NULL
);

-- Returns of an order, and imported ones of none.
CREATE TABLE returns (
    id          text COLLATE "C" PRIMARY KEY,
    order_id    text COLLATE "C" REFERENCES orders (id),
    customer_id text COLLATE "C" NOT NULL,
    reference   text COLLATE "C",
    currency    text NOT NULL,
    amount      bigint NOT NULL CHECK (amount > 0),
    created_at  bigint NOT NULL,
    updated_at  bigint NOT NULL,
    restocked   smallint NOT NULL DEFAULT 0 CHECK (restocked IN (0, 1)),
    refunded    smallint NOT NULL DEFAULT 0 CHECK (refunded IN (0, 1)),
    lines       text NOT NULL
);

CREATE UNIQUE INDEX returns_reference ON returns (reference) WHERE reference IS NOT NULL;
CREATE INDEX returns_order ON returns (order_id) WHERE order_id IS NOT NULL;
