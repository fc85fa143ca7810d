-- $1 how many at most: idempotency keys whose window has ended
WITH ended AS (
    DELETE FROM {schema}.turn_keys WHERE ctid IN (
        SELECT ctid FROM {schema}.turn_keys WHERE known_until < now() ORDER BY known_until LIMIT $1 FOR UPDATE SKIP LOCKED
    ) RETURNING 1
)
SELECT count(*) FROM ended
