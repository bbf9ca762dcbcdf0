-- What inventory owns. A product's place in the books: initial - sold + returned = free + reserved,
-- where sold, reserved and returned follow from the ledger below, so that rows and ledger check one another.
--
-- Names that come from outside are bytes: a character column takes "a" and "a " for the same. A table that
-- rows are inserted into at most once each has repeats: a repeated insert changes it and so counts as two
-- rows affected, with clientFoundRows on and off, where the first counts as one. IF NOT EXISTS, because DDL
-- commits by itself here: a migration that was cut off is repeated.
CREATE TABLE IF NOT EXISTS stock (
    product  VARBINARY(255) PRIMARY KEY,
    initial  BIGINT NOT NULL CHECK (initial >= 0),
    free     BIGINT NOT NULL CHECK (free >= 0)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- One row an order: the arbiter of its stock, and its line in the movements ledger.
CREATE TABLE IF NOT EXISTS reservation (
    order_id VARBINARY(255) PRIMARY KEY,
    state    VARCHAR(16) NOT NULL CHECK (state IN ('RESERVED', 'FAILED', 'RELEASED', 'COMMITTED')),
    `lines`  LONGTEXT NOT NULL, -- [["product", units], ...]
    short    LONGTEXT NOT NULL, -- products there was not enough of
    at       BIGINT NOT NULL,
    repeats  BIGINT NOT NULL DEFAULT 0
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS stock_return (
    return_id VARBINARY(255) PRIMARY KEY,
    `lines`   LONGTEXT NOT NULL,
    at        BIGINT NOT NULL,
    repeats   BIGINT NOT NULL DEFAULT 0
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
