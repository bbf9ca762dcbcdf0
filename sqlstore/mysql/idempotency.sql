-- name: lookup
SELECT fingerprint, status, header, body, saved_at FROM settle_answer WHERE scope = ?1 AND `key` = ?2;

-- name: save
INSERT INTO settle_answer (scope, `key`, fingerprint, status, header, body, saved_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7);

-- name: forget
DELETE FROM settle_answer WHERE saved_at < ?1 ORDER BY saved_at LIMIT ?2;
