-- What the contracts beside the outbox keep. See 0001 for what holds of every table. Identities are the 16
-- bytes of a UUID; names are compared byte by byte. A reader's key has to fit into 3072 bytes.

CREATE TABLE IF NOT EXISTS settle_inbox_group (
    id   BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    name VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL UNIQUE
) ENGINE = InnoDB;

-- Identities of version 7 arrive nearly in order, so that the table grows at its end, and they are
-- forgotten by their own time (timed = 1: it has passed). Others need the index, and only they have a value in it.
CREATE TABLE IF NOT EXISTS settle_inbox (
    group_id   BIGINT     NOT NULL,
    event_id   BINARY(16) NOT NULL,
    at         BIGINT     NOT NULL,
    timed      BOOLEAN    NOT NULL,
    untimed_at BIGINT AS (IF(timed, NULL, at)) VIRTUAL,
    PRIMARY KEY (group_id, event_id),
    KEY settle_inbox_untimed (untimed_at)
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS settle_position (
    group_name  VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    `partition` VARCHAR(400) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    fence       BIGINT       NOT NULL CHECK (fence >= 1),
    incarnation VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL DEFAULT '',
    `offset`    BIGINT       NOT NULL DEFAULT 0,
    stored      BIGINT       NOT NULL DEFAULT 0,
    PRIMARY KEY (group_name, `partition`)
) ENGINE = InnoDB;

-- A letter's life: RETRYING -> gone, or -> DEAD -> RETRYING again or gone. WAITING stands behind
-- another one of its lane (group, topic, aggregate).
CREATE TABLE IF NOT EXISTS settle_letter (
    seq             BIGINT       NOT NULL AUTO_INCREMENT PRIMARY KEY,
    group_name      VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
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
    `partition`     VARCHAR(400) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    position        VARCHAR(400) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    state           VARCHAR(8)   CHARACTER SET ascii COLLATE ascii_bin NOT NULL CHECK (state IN ('RETRYING', 'WAITING', 'DEAD')),
    attempts        INT          NOT NULL CHECK (attempts >= 0),
    first_at        BIGINT       NOT NULL,
    last_at         BIGINT       NOT NULL,
    next_at         BIGINT       NOT NULL,
    cause           TEXT         CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    stack           TEXT         CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    permanent       BOOLEAN      NOT NULL,
    changed         BIGINT       NOT NULL DEFAULT 0,
    UNIQUE KEY settle_letter_event (group_name, event_id),
    KEY settle_letter_lane (group_name, topic, aggregate_id, seq),
    KEY settle_letter_due (group_name, state, next_at)
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS settle_audit (
    id       BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    at       BIGINT NOT NULL,
    operator VARCHAR(255)  CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    action   VARCHAR(64)   CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    letter   VARCHAR(255)  CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    note     TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS settle_timer (
    id              BIGINT       NOT NULL AUTO_INCREMENT PRIMARY KEY,
    `key`           VARBINARY(256) NOT NULL UNIQUE CHECK (length(`key`) > 0),
    at              BIGINT       NOT NULL,
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
    KEY settle_timer_at (at, id)
) ENGINE = InnoDB;

-- A call waits (claimed = 0) until due, or is in a worker's hands (claimed = 1) until due: its lease.
CREATE TABLE IF NOT EXISTS settle_call (
    id             BIGINT       NOT NULL AUTO_INCREMENT PRIMARY KEY,
    `call`         VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL CHECK (`call` <> ''),
    `key`          VARBINARY(256) NOT NULL CHECK (length(`key`) > 0),
    request        LONGBLOB,
    trace_parent   VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    correlation_id VARCHAR(512) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    causation_id   BINARY(16),
    due            BIGINT       NOT NULL,
    created_at     BIGINT       NOT NULL,
    attempts       INT          NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    claimed        BOOLEAN      NOT NULL DEFAULT false,
    last_error     TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    UNIQUE KEY settle_call_key (`call`, `key`),
    KEY settle_call_due (`call`, due, id),
    CHECK (NOT claimed OR attempts > 0)
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS settle_answer (
    scope       VARBINARY(512) NOT NULL,
    `key`       VARBINARY(255) NOT NULL,
    fingerprint BINARY(32)     NOT NULL,
    status      INT            NOT NULL,
    header      TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    body        LONGBLOB,
    saved_at    BIGINT         NOT NULL,
    PRIMARY KEY (scope, `key`),
    KEY settle_answer_saved (saved_at)
) ENGINE = InnoDB;

-- Frames are numbered by this row: whoever appends holds it until the commit, so that no reader passes a
-- frame that becomes visible later. A feed log that was lost and begun anew has another epoch.
CREATE TABLE IF NOT EXISTS settle_feed (
    id     SMALLINT NOT NULL PRIMARY KEY CHECK (id = 1),
    epoch  CHAR(32) CHARACTER SET ascii NOT NULL,
    `last` BIGINT   NOT NULL
) ENGINE = InnoDB;
INSERT INTO settle_feed (id, epoch, `last`) VALUES (1, REPLACE(UUID(), '-', ''), 0)
ON DUPLICATE KEY UPDATE id = id;
CREATE TABLE IF NOT EXISTS settle_frame (
    position BIGINT       NOT NULL PRIMARY KEY,
    event    VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    data     LONGBLOB,
    feeds    TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL
) ENGINE = InnoDB;
CREATE TABLE IF NOT EXISTS settle_frame_feed (
    feed     VARBINARY(512) NOT NULL,
    position BIGINT         NOT NULL,
    PRIMARY KEY (feed, position),
    KEY settle_frame_feed_position (position)
) ENGINE = InnoDB;

-- No row is ever deleted, so that a fence never returns.
CREATE TABLE IF NOT EXISTS settle_lease (
    name       VARBINARY(200) NOT NULL PRIMARY KEY,
    owner      VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    fence      BIGINT         NOT NULL,
    expires_at BIGINT         NOT NULL
) ENGINE = InnoDB;

-- A row for each digest of a name that was ever serialised.
CREATE TABLE IF NOT EXISTS settle_serial (
    slot BIGINT NOT NULL PRIMARY KEY
) ENGINE = InnoDB;
