-- One row for each event id that has been delivered.
CREATE TABLE IF NOT EXISTS platform_deliveries (
    event_id   TEXT    NOT NULL PRIMARY KEY,
    kind       TEXT    NOT NULL CHECK (kind IN ('order', 'reservation', 'message')),
    reference  TEXT    NOT NULL,
    deliveries INTEGER NOT NULL CHECK (deliveries > 0)
) WITHOUT ROWID;
