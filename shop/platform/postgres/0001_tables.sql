-- What platform owns: one row a delivery, by the event that caused it.
CREATE TABLE delivery (
    event_id text COLLATE "C" PRIMARY KEY,
    order_id text COLLATE "C" NOT NULL,
    state    text NOT NULL CHECK (state IN ('PENDING', 'SENT', 'REFUSED')),
    at       bigint NOT NULL
);
