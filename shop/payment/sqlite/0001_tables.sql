-- What payment owns. A payment's row is the arbiter of what the gateway has really done.
CREATE TABLE payment (
    order_id TEXT PRIMARY KEY,
    state    TEXT NOT NULL CHECK (state IN ('REQUESTED', 'AUTHORIZED', 'DECLINED', 'VOIDING', 'VOIDED',
                                            'CAPTURING', 'CAPTURED', 'CAPTURE_FAILED')),
    minor    INTEGER NOT NULL,
    currency TEXT NOT NULL,
    code     TEXT NOT NULL DEFAULT '', -- the gateway's, when it refused
    at       INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE refund (
    return_id TEXT PRIMARY KEY,
    order_id  TEXT NOT NULL, -- empty for an unreferenced credit
    state     TEXT NOT NULL CHECK (state IN ('REQUESTED', 'REFUNDED', 'REFUSED')),
    minor     INTEGER NOT NULL,
    currency  TEXT NOT NULL,
    code      TEXT NOT NULL DEFAULT '',
    at        INTEGER NOT NULL
) WITHOUT ROWID;

-- Hints of the gateway that have been seen: a webhook comes more than once.
CREATE TABLE webhook (
    id TEXT PRIMARY KEY,
    at INTEGER NOT NULL
) WITHOUT ROWID;
