-- $1 agent, $2 session, $3 metadata, $4 whether it has ended; one that has stays ended as of then. $5 and $6: digest of the
-- key and fingerprint of the request that started it once more (NULL: another kind of request).
UPDATE {schema}.agent_sessions
SET metadata = $3::jsonb, ended_at = CASE WHEN $4 THEN coalesce(ended_at, clock_timestamp()) END,
    start_key = coalesce($5, start_key), start_fingerprint = coalesce($6, start_fingerprint)
WHERE agent_id = $1 AND session_id = $2
RETURNING *
