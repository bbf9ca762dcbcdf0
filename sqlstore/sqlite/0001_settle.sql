-- Tables of settle. Times are nanoseconds since 1970 in UTC, 0 means none. Identities are the 16 bytes
-- of a UUID. Names start with settle_, so that they stand beside a service's own.

CREATE TABLE settle_meta (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- AUTOINCREMENT: without it the identity of a purged last row is given again, and a reader that has
-- passed it never sees the new event.
CREATE TABLE settle_outbox (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id        BLOB    NOT NULL CHECK (length(event_id) = 16),
    type            TEXT    NOT NULL,
    version         INTEGER NOT NULL CHECK (version >= 1),
    topic           TEXT    NOT NULL,
    aggregate_type  TEXT    NOT NULL,
    aggregate_id    TEXT    NOT NULL,
    occurred_at     INTEGER NOT NULL,
    trace_parent    TEXT    NOT NULL,
    correlation_id  TEXT    NOT NULL,
    causation_id    BLOB,
    idempotency_key TEXT    NOT NULL,
    producer        TEXT    NOT NULL,
    data            BLOB,
    created_at      INTEGER NOT NULL
);

-- One row for each shard; fence rises with each owner and never falls.
CREATE TABLE settle_relay (
    shard    INTEGER PRIMARY KEY,
    owner    TEXT    NOT NULL,
    fence    INTEGER NOT NULL CHECK (fence >= 1),
    position INTEGER NOT NULL DEFAULT 0 CHECK (position >= 0)
);

CREATE TABLE settle_relay_mark (
    shard    INTEGER NOT NULL,
    position INTEGER NOT NULL CHECK (position >= 0),
    at       INTEGER NOT NULL,
    tail     BLOB,
    PRIMARY KEY (shard, position, at)
) WITHOUT ROWID;

-- Events that a broker refused, and those behind them. They outlive the outbox's retention.
CREATE TABLE settle_relay_parked (
    id              INTEGER PRIMARY KEY,
    event_id        BLOB    NOT NULL CHECK (length(event_id) = 16),
    type            TEXT    NOT NULL,
    version         INTEGER NOT NULL,
    topic           TEXT    NOT NULL,
    aggregate_type  TEXT    NOT NULL,
    aggregate_id    TEXT    NOT NULL,
    occurred_at     INTEGER NOT NULL,
    trace_parent    TEXT    NOT NULL,
    correlation_id  TEXT    NOT NULL,
    causation_id    BLOB,
    idempotency_key TEXT    NOT NULL,
    producer        TEXT    NOT NULL,
    data            BLOB,
    created_at      INTEGER NOT NULL,
    cause           TEXT    NOT NULL,
    parked_at       INTEGER NOT NULL,
    attempts        INTEGER NOT NULL CHECK (attempts >= 1),
    replay          INTEGER NOT NULL DEFAULT 0 CHECK (replay IN (0, 1))
);
CREATE INDEX settle_relay_parked_key ON settle_relay_parked (topic, aggregate_id, id);
CREATE INDEX settle_relay_parked_replay ON settle_relay_parked (id) WHERE replay = 1;

-- The outbox as a person reads it: PENDING, SENT or FAILED follow from positions and parked rows.
CREATE VIEW settle_outbox_status AS
SELECT o.id, o.type, o.version, o.topic, o.aggregate_type, o.aggregate_id, o.producer,
       CASE WHEN p.id IS NOT NULL THEN 'FAILED'
            WHEN o.id <= coalesce((SELECT position FROM settle_relay WHERE shard = 0), 0) THEN 'SENT'
            ELSE 'PENDING' END AS status,
       coalesce(p.attempts, 0) AS attempts,
       p.cause AS last_error,
       datetime(o.created_at / 1000000000, 'unixepoch') AS created_at,
       lower(hex(o.event_id)) AS event_id,
       CAST(o.data AS TEXT) AS data
FROM settle_outbox o LEFT JOIN settle_relay_parked p ON p.id = o.id;

CREATE TABLE settle_inbox_group (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);

-- Identities of version 7 arrive nearly in order, so that the table grows at its end, and they are
-- forgotten by their own time (timed = 1: it has passed). Others need the index, and only they pay for it.
CREATE TABLE settle_inbox (
    group_id INTEGER NOT NULL,
    event_id BLOB    NOT NULL,
    at       INTEGER NOT NULL,
    timed    INTEGER NOT NULL CHECK (timed IN (0, 1)),
    PRIMARY KEY (group_id, event_id)
) WITHOUT ROWID;
CREATE INDEX settle_inbox_untimed ON settle_inbox (at) WHERE timed = 0;

CREATE TABLE settle_position (
    group_name  TEXT    NOT NULL,
    partition   TEXT    NOT NULL,
    fence       INTEGER NOT NULL CHECK (fence >= 1),
    incarnation TEXT    NOT NULL DEFAULT '',
    offset      INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (group_name, partition)
) WITHOUT ROWID;

-- A letter's life: RETRYING -> gone, or -> DEAD -> RETRYING again or gone. WAITING stands behind
-- another one of its lane (group, topic, aggregate).
CREATE TABLE settle_letter (
    seq             INTEGER PRIMARY KEY AUTOINCREMENT,
    group_name      TEXT    NOT NULL,
    event_id        BLOB    NOT NULL CHECK (length(event_id) = 16),
    type            TEXT    NOT NULL,
    version         INTEGER NOT NULL,
    topic           TEXT    NOT NULL,
    aggregate_type  TEXT    NOT NULL,
    aggregate_id    TEXT    NOT NULL,
    occurred_at     INTEGER NOT NULL,
    trace_parent    TEXT    NOT NULL,
    correlation_id  TEXT    NOT NULL,
    causation_id    BLOB,
    idempotency_key TEXT    NOT NULL,
    producer        TEXT    NOT NULL,
    data            BLOB,
    partition       TEXT    NOT NULL,
    position        TEXT    NOT NULL,
    state           TEXT    NOT NULL CHECK (state IN ('RETRYING', 'WAITING', 'DEAD')),
    attempts        INTEGER NOT NULL CHECK (attempts >= 0),
    first_at        INTEGER NOT NULL,
    last_at         INTEGER NOT NULL,
    next_at         INTEGER NOT NULL,
    cause           TEXT    NOT NULL,
    stack           TEXT    NOT NULL,
    permanent       INTEGER NOT NULL CHECK (permanent IN (0, 1)),
    UNIQUE (group_name, event_id)
);
CREATE INDEX settle_letter_lane ON settle_letter (group_name, topic, aggregate_id, seq);
CREATE INDEX settle_letter_due ON settle_letter (group_name, next_at) WHERE state = 'RETRYING';

CREATE TABLE settle_audit (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    at       INTEGER NOT NULL,
    operator TEXT    NOT NULL,
    action   TEXT    NOT NULL,
    letter   TEXT    NOT NULL,
    note     TEXT    NOT NULL
);

CREATE TABLE settle_timer (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    key             TEXT    NOT NULL UNIQUE CHECK (length(key) > 0),
    at              INTEGER NOT NULL,
    event_id        BLOB    NOT NULL CHECK (length(event_id) = 16),
    type            TEXT    NOT NULL,
    version         INTEGER NOT NULL,
    topic           TEXT    NOT NULL,
    aggregate_type  TEXT    NOT NULL,
    aggregate_id    TEXT    NOT NULL,
    occurred_at     INTEGER NOT NULL,
    trace_parent    TEXT    NOT NULL,
    correlation_id  TEXT    NOT NULL,
    causation_id    BLOB,
    idempotency_key TEXT    NOT NULL,
    producer        TEXT    NOT NULL,
    data            BLOB
);
CREATE INDEX settle_timer_at ON settle_timer (at, id);

-- A call waits (claimed = 0) until due, or is in a worker's hands (claimed = 1) until due: its lease.
CREATE TABLE settle_call (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    call           TEXT    NOT NULL CHECK (length(call) > 0),
    key            TEXT    NOT NULL CHECK (length(key) > 0),
    request        BLOB,
    trace_parent   TEXT    NOT NULL,
    correlation_id TEXT    NOT NULL,
    causation_id   BLOB,
    due            INTEGER NOT NULL,
    created_at     INTEGER NOT NULL,
    attempts       INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    claimed        INTEGER NOT NULL DEFAULT 0 CHECK (claimed IN (0, 1)),
    last_error     TEXT    NOT NULL DEFAULT '',
    UNIQUE (call, key),
    CHECK (claimed = 0 OR attempts > 0)
);
CREATE INDEX settle_call_due ON settle_call (call, due, id);

CREATE TABLE settle_answer (
    scope       TEXT    NOT NULL,
    key         TEXT    NOT NULL,
    fingerprint BLOB    NOT NULL CHECK (length(fingerprint) = 32),
    status      INTEGER NOT NULL,
    header      TEXT    NOT NULL,
    body        BLOB,
    saved_at    INTEGER NOT NULL,
    UNIQUE (scope, key)
);
CREATE INDEX settle_answer_saved ON settle_answer (saved_at);

CREATE TABLE settle_frame (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    event    TEXT NOT NULL,
    data     BLOB,
    feeds    TEXT NOT NULL -- JSON array
);
CREATE TABLE settle_frame_feed (
    feed     TEXT    NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (feed, position)
) WITHOUT ROWID;

-- A feed log that was lost and begun anew has another epoch.
INSERT INTO settle_meta (key, value) VALUES ('feed_epoch', lower(hex(randomblob(8))));
