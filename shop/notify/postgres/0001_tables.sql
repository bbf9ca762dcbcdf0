-- What notify owns: one row a message, by the event that caused it.
CREATE TABLE message (
    event_id text COLLATE "C" PRIMARY KEY,
    order_id text COLLATE "C" NOT NULL,
    state    text NOT NULL CHECK (state IN ('PENDING', 'SENT', 'REFUSED')),
    at       bigint NOT NULL
);
