-- What shipping owns: one row an order.
CREATE TABLE shipment (
    order_id TEXT PRIMARY KEY,
    state    TEXT NOT NULL CHECK (state IN ('PLANNED', 'CREATED', 'FAILED', 'CANCELED')),
    at       INTEGER NOT NULL
) WITHOUT ROWID;
