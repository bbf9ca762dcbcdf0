-- Tables of settle on MySQL and MariaDB. Times are nanoseconds since 1970 in UTC, 0 means none. Names start
-- with settle_, so that they stand beside a service's own. The tables are those of SQLite where nothing says
-- why not. Definitions commit by themselves here, so these may be run again after they failed half way.

CREATE TABLE IF NOT EXISTS settle_meta (
    `key` VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    value VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL
) ENGINE = InnoDB;

-- The log. Identities are given before commit, so rows become visible out of their order: a position (seq) is
-- given afterwards, by the shard's owner. A transaction writes its events last, after its rows are locked: then
-- whoever sees an event of an aggregate sees all before it, and id orders them, also across transactions.
CREATE TABLE IF NOT EXISTS settle_outbox (
    id              BIGINT       NOT NULL AUTO_INCREMENT PRIMARY KEY,
    shard           SMALLINT     NOT NULL DEFAULT 0,
    seq             BIGINT       CHECK (seq > 0),
    event_id        BINARY(16)   NOT NULL DEFAULT (UNHEX(REPLACE(UUID(), '-', ''))),
    type            VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL CHECK (type <> ''),
    version         INT          NOT NULL DEFAULT 1 CHECK (version >= 1),
    topic           VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL CHECK (topic <> ''),
    aggregate_type  VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL DEFAULT 'thing' CHECK (aggregate_type <> ''),
    aggregate_id    VARBINARY(512) NOT NULL CHECK (length(aggregate_id) > 0),
    occurred_at     BIGINT       NOT NULL DEFAULT (TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) * 1000),
    trace_parent    VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL DEFAULT '',
    correlation_id  VARCHAR(512) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL DEFAULT '',
    causation_id    BINARY(16),
    idempotency_key VARCHAR(512) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL DEFAULT '',
    producer        VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL DEFAULT 'sql',
    data            LONGBLOB,
    created_at      BIGINT       NOT NULL DEFAULT (TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) * 1000),
    KEY settle_outbox_seq (shard, seq)
) ENGINE = InnoDB;

-- One row for each shard; fence rises with each owner and never falls. (epoch, tick, id) is how far the shard
-- has been carried. seq is the last position given. Those up to shown are on disk: a commit is seen before that
-- here, so a reader other than the owner goes no further.
CREATE TABLE IF NOT EXISTS settle_relay (
    shard      SMALLINT     NOT NULL PRIMARY KEY,
    owner      VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL DEFAULT '',
    fence      BIGINT       NOT NULL DEFAULT 0 CHECK (fence >= 0),
    expires_at BIGINT       NOT NULL DEFAULT 0,
    epoch      BIGINT       NOT NULL DEFAULT 0,
    tick       BIGINT       NOT NULL DEFAULT 0,
    id         BIGINT       NOT NULL DEFAULT 0 CHECK (id >= 0),
    -- Of the server that the positions are of.
    cluster    VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT '',
    seq        BIGINT       NOT NULL DEFAULT 0,
    shown      BIGINT       NOT NULL DEFAULT 0,
    CHECK (shown <= seq AND id <= seq)
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS settle_relay_mark (
    shard SMALLINT NOT NULL,
    epoch BIGINT   NOT NULL,
    tick  BIGINT   NOT NULL,
    id    BIGINT   NOT NULL,
    at    BIGINT   NOT NULL,
    tail  LONGBLOB,
    PRIMARY KEY (shard, epoch, tick, id, at)
) ENGINE = InnoDB;

-- Events that a broker refused, and those behind them. They outlive the outbox's retention.
CREATE TABLE IF NOT EXISTS settle_relay_parked (
    shard           SMALLINT     NOT NULL,
    epoch           BIGINT       NOT NULL,
    tick            BIGINT       NOT NULL,
    id              BIGINT       NOT NULL,
    event_id        BINARY(16)   NOT NULL,
    type            VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    version         INT          NOT NULL,
    topic           VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    aggregate_type  VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    aggregate_id    VARBINARY(512) NOT NULL,
    occurred_at     BIGINT       NOT NULL,
    trace_parent    VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    correlation_id  VARCHAR(512) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    causation_id    BINARY(16),
    idempotency_key VARCHAR(512) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    producer        VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    data            LONGBLOB,
    created_at      BIGINT       NOT NULL,
    cause           TEXT         CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    parked_at       BIGINT       NOT NULL,
    attempts        INT          NOT NULL CHECK (attempts >= 1),
    replay          BOOLEAN      NOT NULL DEFAULT false,
    changed         BIGINT       NOT NULL DEFAULT 0,
    PRIMARY KEY (epoch, tick, id, shard),
    KEY settle_relay_parked_key (topic, aggregate_id, epoch, tick, id),
    KEY settle_relay_parked_replay (replay, epoch, tick, id)
) ENGINE = InnoDB;

-- The outbox as a person reads it: PENDING, SENT or FAILED follow from positions and parked rows.
CREATE OR REPLACE VIEW settle_outbox_status AS
SELECT o.id, o.seq, o.type, o.version, o.topic, o.aggregate_type, o.aggregate_id, o.producer,
       CASE WHEN p.id IS NOT NULL THEN 'FAILED' WHEN o.seq <= coalesce(r.id, 0) THEN 'SENT' ELSE 'PENDING' END AS status,
       coalesce(p.attempts, 0) AS attempts,
       p.cause AS last_error,
       TIMESTAMPADD(MICROSECOND, p.parked_at DIV 1000, TIMESTAMP('1970-01-01')) AS last_attempt_at,
       TIMESTAMPADD(MICROSECOND, o.created_at DIV 1000, TIMESTAMP('1970-01-01')) AS created_at,
       lower(hex(o.event_id)) AS event_id,
       CONVERT(o.data USING utf8mb4) AS data
FROM settle_outbox o
LEFT JOIN settle_relay r ON r.shard = o.shard
LEFT JOIN settle_relay_parked p ON p.shard = o.shard AND p.epoch = 0 AND p.tick = 0 AND p.id = o.seq;
