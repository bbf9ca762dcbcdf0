-- What platform owns: one row a delivery, by the event that caused it. A repeated insert changes repeats and so counts
-- as two rows affected; IF NOT EXISTS, because DDL commits by itself here and a migration that was cut off is
-- repeated.
CREATE TABLE IF NOT EXISTS delivery (
    event_id VARBINARY(255) PRIMARY KEY,
    order_id VARBINARY(255) NOT NULL,
    state    VARCHAR(16) NOT NULL CHECK (state IN ('PENDING', 'SENT', 'REFUSED')),
    at       BIGINT NOT NULL,
    repeats  BIGINT NOT NULL DEFAULT 0
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
