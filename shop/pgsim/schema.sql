-- One row for each reference that a client has named; amounts are in minor units. The CHECKs are the
-- life of an authorization:
--
--   PENDING -> AUTHORIZED -> CAPTURED        PENDING, AUTHORIZED or nothing -> VOIDED        DECLINED
CREATE TABLE IF NOT EXISTS pg_ledger (
    reference       TEXT    NOT NULL PRIMARY KEY,
    kind            TEXT    NOT NULL CHECK (kind IN ('authorization', 'refund')),
    idempotency_key TEXT    UNIQUE,
    status          TEXT    NOT NULL,
    code            TEXT    NOT NULL DEFAULT '',
    currency        TEXT    NOT NULL,
    requested       INTEGER NOT NULL CHECK (requested >= 0),
    authorized      INTEGER NOT NULL DEFAULT 0 CHECK (authorized IN (0, requested)),
    captured        INTEGER NOT NULL DEFAULT 0,
    voided          INTEGER NOT NULL DEFAULT 0,
    refunded        INTEGER NOT NULL DEFAULT 0,
    party           TEXT    NOT NULL,  -- whose: the customer of an authorization, the authorization of a refund
    calls           INTEGER NOT NULL,  -- that reached the ledger
    due_at          INTEGER,           -- when a PENDING one is approved, Unix milliseconds
    CHECK (kind <> 'authorization' OR CASE status
        WHEN 'PENDING'    THEN authorized = 0 AND captured = 0 AND voided = 0 AND due_at IS NOT NULL
        WHEN 'AUTHORIZED' THEN authorized > 0 AND captured = 0 AND voided = 0
        WHEN 'CAPTURED'   THEN captured > 0 AND voided >= 0 AND captured + voided = authorized
        WHEN 'VOIDED'     THEN captured = 0 AND voided = authorized
        WHEN 'DECLINED'   THEN authorized = 0 AND captured = 0 AND voided = 0
        ELSE 0 END),
    CHECK (kind <> 'authorization' OR refunded BETWEEN 0 AND captured),
    CHECK (kind <> 'refund' OR (status = 'REFUNDED' AND refunded = requested AND authorized = 0)),
    CHECK (due_at IS NULL OR status = 'PENDING')
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS pg_ledger_due ON pg_ledger (due_at) WHERE due_at IS NOT NULL;

-- Webhooks that are still to be sent; a row is deleted when its last copy has been taken.
CREATE TABLE IF NOT EXISTS pg_webhooks (
    position   INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    webhook_id TEXT    NOT NULL,
    payload    TEXT    NOT NULL,
    copies     INTEGER NOT NULL CHECK (copies > 0),
    attempts   INTEGER NOT NULL DEFAULT 0,
    first_at   INTEGER NOT NULL,  -- when it was first due, Unix milliseconds
    due_at     INTEGER NOT NULL
);

CREATE INDEX IF NOT EXISTS pg_webhooks_due ON pg_webhooks (due_at);
