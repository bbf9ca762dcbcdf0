-- What payment owns. A payment's row is the arbiter of what the gateway has really done.
CREATE TABLE payment (
    order_id text COLLATE "C" PRIMARY KEY,
    state    text NOT NULL CHECK (state IN ('REQUESTED', 'AUTHORIZED', 'DECLINED', 'VOIDING', 'VOIDED',
                                            'CAPTURING', 'CAPTURED', 'CAPTURE_FAILED')),
    minor    bigint NOT NULL,
    currency text NOT NULL,
    code     text NOT NULL DEFAULT '', -- the gateway's, when it refused
    at       bigint NOT NULL
) WITH (fillfactor = 80);

CREATE TABLE refund (
    return_id text COLLATE "C" PRIMARY KEY,
    order_id  text COLLATE "C" NOT NULL, -- empty for an unreferenced credit
    state     text NOT NULL CHECK (state IN ('REQUESTED', 'REFUNDED', 'REFUSED')),
    minor     bigint NOT NULL,
    currency  text NOT NULL,
    code      text NOT NULL DEFAULT '',
    at        bigint NOT NULL
);

-- Hints of the gateway that have been seen: a webhook comes more than once.
CREATE TABLE webhook (
    id text COLLATE "C" PRIMARY KEY,
    at bigint NOT NULL
);
