-- Tables of settle on PostgreSQL. Times are nanoseconds since 1970 in UTC, 0 means none. Names start with
-- settle_, so that they stand beside a service's own. The tables are those of SQLite where nothing says why not.

CREATE TABLE settle_meta (
    key   text NOT NULL PRIMARY KEY,
    value text NOT NULL
);

-- An insert-only log. A transaction writes its events last, after its rows are locked: then id orders the
-- events of one aggregate, also across transactions. CACHE 1 (the default): a session must not keep numbers back.
CREATE SEQUENCE settle_outbox_id AS bigint CACHE 1;
CREATE TABLE settle_outbox (
    id              bigint   NOT NULL DEFAULT nextval('settle_outbox_id'),
    -- Which transaction wrote it: a reader's window is a pair of snapshots.
    xid             xid8     NOT NULL DEFAULT pg_current_xact_id(),
    -- Half days, modulo 4: a slot is emptied by TRUNCATE, without dead rows.
    slot            smallint NOT NULL DEFAULT ((extract(epoch FROM transaction_timestamp())::bigint / 43200) % 4)::smallint,
    shard           smallint NOT NULL DEFAULT 0 CHECK (shard >= 0),
    event_id        uuid     NOT NULL DEFAULT gen_random_uuid(),
    type            text     NOT NULL CHECK (type <> ''),
    version         integer  NOT NULL DEFAULT 1 CHECK (version >= 1),
    topic           text     NOT NULL CHECK (topic <> ''),
    aggregate_type  text     NOT NULL DEFAULT '',
    aggregate_id    text     NOT NULL CHECK (aggregate_id <> ''),
    occurred_at     bigint   NOT NULL DEFAULT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000,
    trace_parent    text     NOT NULL DEFAULT '',
    correlation_id  text     NOT NULL DEFAULT '',
    causation_id    uuid,
    idempotency_key text     NOT NULL DEFAULT '',
    producer        text     NOT NULL DEFAULT current_user,
    data            bytea,
    created_at      bigint   NOT NULL DEFAULT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000,
    -- The only index: what a shard's window asks for.
    PRIMARY KEY (shard, xid, id, slot)
) PARTITION BY LIST (slot);
CREATE TABLE settle_outbox_0 PARTITION OF settle_outbox FOR VALUES IN (0);
CREATE TABLE settle_outbox_1 PARTITION OF settle_outbox FOR VALUES IN (1);
CREATE TABLE settle_outbox_2 PARTITION OF settle_outbox FOR VALUES IN (2);
CREATE TABLE settle_outbox_3 PARTITION OF settle_outbox FOR VALUES IN (3);
ALTER SEQUENCE settle_outbox_id OWNED BY settle_outbox.id;

-- Window t of a shard is what snapshot t shows and snapshot t-1 does not. A tick is kept before anything of its
-- window is published, so (tick, id) is the same position whoever reads, and whenever. lsn is where the log
-- stood, which is behind every commit that the snapshot shows. events is how many a window has, counted up to ten
-- thousand: so a reader knows how many windows fill a page.
CREATE TABLE settle_tick (
    shard    smallint    NOT NULL,
    tick     bigint      NOT NULL CHECK (tick >= 0),
    snapshot pg_snapshot NOT NULL,
    lsn      pg_lsn      NOT NULL,
    at       bigint      NOT NULL,
    events   integer     NOT NULL,
    PRIMARY KEY (shard, tick)
);

-- One row for each shard; fence rises with each owner and never falls. (epoch, tick, id) is how far the shard
-- has been carried. Up to floor_* something may have been purged, and nothing after it. cluster is whose
-- transaction numbers the ticks are made of: those of another mean nothing.
CREATE TABLE settle_relay (
    shard      smallint NOT NULL PRIMARY KEY,
    owner      text     NOT NULL DEFAULT '',
    fence      bigint   NOT NULL DEFAULT 0 CHECK (fence >= 0),
    expires_at bigint   NOT NULL DEFAULT 0,
    epoch      bigint   NOT NULL DEFAULT 0,
    tick       bigint   NOT NULL DEFAULT 0,
    id         bigint   NOT NULL DEFAULT 0,
    floor_tick bigint   NOT NULL DEFAULT 0,
    floor_id   bigint   NOT NULL DEFAULT 0,
    cluster    text     NOT NULL DEFAULT ''
) WITH (fillfactor = 20);

CREATE TABLE settle_relay_mark (
    shard smallint NOT NULL,
    epoch bigint   NOT NULL,
    tick  bigint   NOT NULL,
    id    bigint   NOT NULL,
    at    bigint   NOT NULL,
    tail  bytea,
    PRIMARY KEY (shard, epoch, tick, id, at)
);

-- Events that a broker refused, and those behind them. They outlive the outbox's retention.
CREATE TABLE settle_relay_parked (
    shard           smallint NOT NULL,
    epoch           bigint   NOT NULL,
    tick            bigint   NOT NULL,
    id              bigint   NOT NULL,
    event_id        uuid     NOT NULL,
    type            text     NOT NULL,
    version         integer  NOT NULL,
    topic           text     NOT NULL,
    aggregate_type  text     NOT NULL,
    aggregate_id    text     NOT NULL,
    occurred_at     bigint   NOT NULL,
    trace_parent    text     NOT NULL,
    correlation_id  text     NOT NULL,
    causation_id    uuid,
    idempotency_key text     NOT NULL,
    producer        text     NOT NULL,
    data            bytea,
    created_at      bigint   NOT NULL,
    cause           text     NOT NULL,
    parked_at       bigint   NOT NULL,
    attempts        integer  NOT NULL CHECK (attempts >= 1),
    replay          boolean  NOT NULL DEFAULT false,
    PRIMARY KEY (epoch, tick, id, shard)
);
CREATE INDEX settle_relay_parked_key ON settle_relay_parked (topic, aggregate_id, epoch, tick, id);
CREATE INDEX settle_relay_parked_replay ON settle_relay_parked (epoch, tick, id) WHERE replay;

-- The outbox as a person reads it: PENDING, SENT or FAILED follow from positions and parked rows.
CREATE VIEW settle_outbox_status AS
SELECT o.id, o.type, o.version, o.topic, o.aggregate_type, o.aggregate_id, o.producer,
       CASE WHEN p.id IS NOT NULL THEN 'FAILED'
            WHEN pg_visible_in_snapshot(o.xid, w.snapshot) THEN 'SENT'
            WHEN o.id <= r.id AND pg_visible_in_snapshot(o.xid, t.snapshot) THEN 'SENT'
            ELSE 'PENDING' END AS status,
       coalesce(p.attempts, 0) AS attempts,
       p.cause AS last_error,
       to_timestamp(o.created_at / 1000000000.0) AS created_at,
       o.event_id,
       convert_from(o.data, 'UTF8') AS data
FROM settle_outbox o
     LEFT JOIN settle_relay r ON r.shard = o.shard
     LEFT JOIN settle_tick t ON t.shard = r.shard AND t.tick = r.tick
     LEFT JOIN settle_tick w ON w.shard = r.shard AND w.tick = r.tick - 1
     LEFT JOIN settle_relay_parked p ON p.shard = o.shard AND p.id = o.id;
