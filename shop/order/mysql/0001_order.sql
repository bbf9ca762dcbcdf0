-- What order owns. An order's row is small, because every event of the order rewrites it: its lines, which
-- never change, stand beside it. told and answered are the bit sets of order.Told.
--
-- Names that come from outside are bytes, because a character column takes "a" and "a " for the same; a
-- repeated insert changes repeats and so counts as two rows affected, with clientFoundRows on and off; IF NOT
-- EXISTS, because DDL commits by itself here and a migration that was cut off is repeated.
CREATE TABLE IF NOT EXISTS orders (
    id             VARBINARY(255) PRIMARY KEY,
    customer_id    VARBINARY(128) NOT NULL,
    reference      VARBINARY(128), -- of an imported order, unique outside
    currency       VARCHAR(8) NOT NULL,
    total          BIGINT NOT NULL CHECK (total > 0),  -- minor units, as every amount
    returned       BIGINT NOT NULL DEFAULT 0,
    placed_at      BIGINT NOT NULL, -- milliseconds since 1970, as every time
    updated_at     BIGINT NOT NULL,
    state          VARCHAR(32) NOT NULL CHECK (state IN ('PENDING', 'STOCK_RESERVED', 'PAYMENT_IN_PROGRESS', 'PAID',
                                                         'COMPLETED', 'CANCELING', 'CANCELED')),
    stock          VARCHAR(16) NOT NULL DEFAULT '' CHECK (stock IN ('', 'RESERVED', 'FAILED', 'COMMITTED')),
    payment        VARCHAR(16) NOT NULL DEFAULT '' CHECK (payment IN ('', 'AUTHORIZED', 'FAILED', 'CAPTURED', 'CAPTURE_FAILED')),
    shipment       VARCHAR(16) NOT NULL DEFAULT '' CHECK (shipment IN ('', 'CREATED', 'FAILED', 'CANCELED')),
    deadline       VARCHAR(16) NOT NULL DEFAULT '' CHECK (deadline IN ('', 'DELAYED', 'EXPIRED')),
    cancel         TEXT NOT NULL DEFAULT (''), -- why it is to be canceled
    told           BIGINT NOT NULL DEFAULT 0,
    answered       BIGINT NOT NULL DEFAULT 0,
    contradictions BIGINT NOT NULL DEFAULT 0,
    version        BIGINT NOT NULL DEFAULT 1,
    repeats        BIGINT NOT NULL DEFAULT 0,
    UNIQUE KEY orders_reference (reference),
    KEY orders_customer (customer_id, placed_at, id),
    CHECK (returned BETWEEN 0 AND total),
    CHECK ((answered & ~told) = 0),
    CHECK (state <> 'COMPLETED' OR (stock = 'COMMITTED' AND payment = 'CAPTURED')),
    CHECK (state <> 'CANCELED' OR (cancel <> '' AND stock <> 'COMMITTED' AND payment NOT IN ('CAPTURED', 'CAPTURE_FAILED')))
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- The lines as one JSON array in the order of the request: they are written once and read together.
CREATE TABLE IF NOT EXISTS order_lines (
    order_id VARBINARY(255) PRIMARY KEY,
    `lines`  LONGTEXT NOT NULL,
    FOREIGN KEY (order_id) REFERENCES orders (id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Returns of an order, and imported ones of none.
CREATE TABLE IF NOT EXISTS returns (
    id          VARBINARY(255) PRIMARY KEY,
    order_id    VARBINARY(255),
    customer_id VARBINARY(128) NOT NULL,
    reference   VARBINARY(128),
    currency    VARCHAR(8) NOT NULL,
    amount      BIGINT NOT NULL CHECK (amount > 0),
    created_at  BIGINT NOT NULL,
    updated_at  BIGINT NOT NULL,
    restocked   SMALLINT NOT NULL DEFAULT 0 CHECK (restocked IN (0, 1)),
    refunded    SMALLINT NOT NULL DEFAULT 0 CHECK (refunded IN (0, 1)),
    `lines`     LONGTEXT NOT NULL,
    repeats     BIGINT NOT NULL DEFAULT 0,
    UNIQUE KEY returns_reference (reference),
    KEY returns_order (order_id),
    FOREIGN KEY (order_id) REFERENCES orders (id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
