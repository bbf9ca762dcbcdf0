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
    shard           smallint NOT NULL DEFAULT 0,
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
    PRIMARY KEY (slot, xid, id)
) PARTITION BY LIST (slot);
CREATE TABLE settle_outbox_0 PARTITION OF settle_outbox FOR VALUES IN (0);
CREATE TABLE settle_outbox_1 PARTITION OF settle_outbox FOR VALUES IN (1);
CREATE TABLE settle_outbox_2 PARTITION OF settle_outbox FOR VALUES IN (2);
CREATE TABLE settle_outbox_3 PARTITION OF settle_outbox FOR VALUES IN (3);
