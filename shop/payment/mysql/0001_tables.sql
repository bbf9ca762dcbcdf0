-- What payment owns. A payment's row is the arbiter of what the gateway has really done. Names that come from
-- outside are bytes, because a character column takes "a" and "a " for the same; a repeated insert changes
-- repeats and so counts as two rows affected; IF NOT EXISTS, because DDL commits by itself here and a
-- migration that was cut off is repeated.
CREATE TABLE IF NOT EXISTS payment (
    order_id VARBINARY(255) PRIMARY KEY,
    state    VARCHAR(16) NOT NULL CHECK (state IN ('REQUESTED', 'AUTHORIZED', 'DECLINED', 'VOIDING', 'VOIDED',
                                                   'CAPTURING', 'CAPTURED', 'CAPTURE_FAILED')),
    minor    BIGINT NOT NULL,
    currency VARCHAR(8) NOT NULL,
    code     TEXT NOT NULL DEFAULT (''), -- the gateway's, when it refused
    at       BIGINT NOT NULL,
    repeats  BIGINT NOT NULL DEFAULT 0
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS refund (
    return_id VARBINARY(255) PRIMARY KEY,
    order_id  VARBINARY(255) NOT NULL, -- empty for an unreferenced credit
    state     VARCHAR(16) NOT NULL CHECK (state IN ('REQUESTED', 'REFUNDED', 'REFUSED')),
    minor     BIGINT NOT NULL,
    currency  VARCHAR(8) NOT NULL,
    code      TEXT NOT NULL DEFAULT (''),
    at        BIGINT NOT NULL,
    repeats   BIGINT NOT NULL DEFAULT 0
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Hints of the gateway that have been seen: a webhook comes more than once.
CREATE TABLE IF NOT EXISTS webhook (
    id      VARBINARY(255) PRIMARY KEY,
    at      BIGINT NOT NULL,
    repeats BIGINT NOT NULL DEFAULT 0
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
