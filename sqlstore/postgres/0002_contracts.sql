-- What the contracts beside the outbox keep. See 0001 for what holds of every table.

CREATE TABLE settle_inbox_group (
    id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text   NOT NULL UNIQUE
);

-- Identities of version 7 arrive nearly in order, so that the index grows at its end, and they are
-- forgotten by their own time (timed: it has passed). Others need the second index, and only they pay for it.
CREATE TABLE settle_inbox (
    group_id bigint  NOT NULL,
    event_id uuid    NOT NULL,
    at       bigint  NOT NULL,
    timed    boolean NOT NULL,
    PRIMARY KEY (group_id, event_id)
);
CREATE INDEX settle_inbox_untimed ON settle_inbox (at) WHERE NOT timed;

CREATE TABLE settle_position (
    group_name  text   NOT NULL,
    partition   text   NOT NULL,
    fence       bigint NOT NULL CHECK (fence >= 1),
    incarnation text   NOT NULL DEFAULT '',
    "offset"    bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (group_name, partition)
) WITH (fillfactor = 20);

-- A letter's life: RETRYING -> gone, or -> DEAD -> RETRYING again or gone. WAITING stands behind
-- another one of its lane (group, topic, aggregate).
CREATE TABLE settle_letter (
    seq             bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    group_name      text    NOT NULL,
    event_id        uuid    NOT NULL,
    type            text    NOT NULL,
    version         integer NOT NULL,
    topic           text    NOT NULL,
    aggregate_type  text    NOT NULL,
    aggregate_id    text    NOT NULL,
    occurred_at     bigint  NOT NULL,
    trace_parent    text    NOT NULL,
    correlation_id  text    NOT NULL,
    causation_id    uuid,
    idempotency_key text    NOT NULL,
    producer        text    NOT NULL,
    data            bytea,
    partition       text    NOT NULL,
    position        text    NOT NULL,
    state           text    NOT NULL CHECK (state IN ('RETRYING', 'WAITING', 'DEAD')),
    attempts        integer NOT NULL CHECK (attempts >= 0),
    first_at        bigint  NOT NULL,
    last_at         bigint  NOT NULL,
    next_at         bigint  NOT NULL,
    cause           text    NOT NULL,
    stack           text    NOT NULL,
    permanent       boolean NOT NULL,
    UNIQUE (group_name, event_id)
);
CREATE INDEX settle_letter_lane ON settle_letter (group_name, topic, aggregate_id, seq);
CREATE INDEX settle_letter_due ON settle_letter (group_name, next_at) WHERE state = 'RETRYING';

CREATE TABLE settle_audit (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       bigint NOT NULL,
    operator text   NOT NULL,
    action   text   NOT NULL,
    letter   text   NOT NULL,
    note     text   NOT NULL
);

CREATE TABLE settle_timer (
    id              bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key             text    NOT NULL UNIQUE CHECK (key <> ''),
    at              bigint  NOT NULL,
    event_id        uuid    NOT NULL,
    type            text    NOT NULL,
    version         integer NOT NULL,
    topic           text    NOT NULL,
    aggregate_type  text    NOT NULL,
    aggregate_id    text    NOT NULL,
    occurred_at     bigint  NOT NULL,
    trace_parent    text    NOT NULL,
    correlation_id  text    NOT NULL,
    causation_id    uuid,
    idempotency_key text    NOT NULL,
    producer        text    NOT NULL,
    data            bytea
);
CREATE INDEX settle_timer_at ON settle_timer (at, id);

-- A call waits (claimed is false) until due, or is in a worker's hands (claimed) until due: its lease.
CREATE TABLE settle_call (
    id             bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    call           text    NOT NULL CHECK (call <> ''),
    key            text    NOT NULL CHECK (key <> ''),
    request        bytea,
    trace_parent   text    NOT NULL,
    correlation_id text    NOT NULL,
    causation_id   uuid,
    due            bigint  NOT NULL,
    created_at     bigint  NOT NULL,
    attempts       integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    claimed        boolean NOT NULL DEFAULT false,
    last_error     text    NOT NULL DEFAULT '',
    UNIQUE (call, key),
    CHECK (NOT claimed OR attempts > 0)
);
CREATE INDEX settle_call_due ON settle_call (call, due, id);

CREATE TABLE settle_answer (
    scope       text    NOT NULL,
    key         text    NOT NULL,
    fingerprint bytea   NOT NULL CHECK (length(fingerprint) = 32),
    status      integer NOT NULL,
    header      text    NOT NULL,
    body        bytea,
    saved_at    bigint  NOT NULL,
    PRIMARY KEY (scope, key)
);
CREATE INDEX settle_answer_saved ON settle_answer (saved_at);

-- Frames are numbered by this row: whoever appends holds it until the commit, so that no reader passes a
-- frame that becomes visible later. A feed log that was lost and begun anew has another epoch.
CREATE TABLE settle_feed (
    id    smallint NOT NULL PRIMARY KEY CHECK (id = 1),
    epoch text     NOT NULL,
    last  bigint   NOT NULL
);
INSERT INTO settle_feed (id, epoch, last) VALUES (1, replace(gen_random_uuid()::text, '-', ''), 0);
CREATE TABLE settle_frame (
    position bigint NOT NULL PRIMARY KEY,
    event    text   NOT NULL,
    data     bytea,
    feeds    text   NOT NULL -- JSON array
);
CREATE TABLE settle_frame_feed (
    feed     text   NOT NULL,
    position bigint NOT NULL,
    PRIMARY KEY (feed, position)
);
CREATE INDEX settle_frame_feed_position ON settle_frame_feed (position);

-- No row is ever deleted, so that a fence never returns.
CREATE TABLE settle_lease (
    name       text   NOT NULL PRIMARY KEY,
    owner      text   NOT NULL,
    fence      bigint NOT NULL,
    expires_at bigint NOT NULL
) WITH (fillfactor = 20);
