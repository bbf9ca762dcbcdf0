-- What platform owns: one row a delivery, by the event that caused it.
CREATE TABLE delivery (
    event_id TEXT PRIMARY KEY,
    order_id TEXT NOT NULL,
    state    TEXT NOT NULL CHECK (state IN ('PENDING', 'SENT', 'REFUSED')),
    at       INTEGER NOT NULL
) WITHOUT ROWID;
