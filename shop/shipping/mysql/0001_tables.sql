-- What shipping owns: one row an order. A repeated insert changes repeats and so counts as two rows affected;
-- IF NOT EXISTS, because DDL commits by itself here and a migration that was cut off is repeated.
CREATE TABLE IF NOT EXISTS shipment (
    order_id VARBINARY(255) PRIMARY KEY,
    state    VARCHAR(16) NOT NULL CHECK (state IN ('PLANNED', 'CREATED', 'FAILED', 'CANCELED')),
    at       BIGINT NOT NULL,
    repeats  BIGINT NOT NULL DEFAULT 0
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
