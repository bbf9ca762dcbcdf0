-- What shipping owns: one row an order.
CREATE TABLE shipment (
    order_id text COLLATE "C" PRIMARY KEY,
    state    text NOT NULL CHECK (state IN ('PLANNED', 'CREATED', 'FAILED', 'CANCELED')),
    at       bigint NOT NULL
);
