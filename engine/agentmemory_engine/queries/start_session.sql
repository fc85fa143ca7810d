-- $1 agent, $2 session, $3 metadata, $4 digest of the request's key and $5 its fingerprint (NULL: it has none), $6 when it
-- started (NULL: now), $7 its last event. No row: it is there already.
INSERT INTO {schema}.agent_sessions (agent_id, session_id, metadata, start_key, start_fingerprint, started_at, last_event_at)
VALUES ($1, $2, $3::jsonb, $4, $5, coalesce($6::timestamptz, clock_timestamp()), $7)
ON CONFLICT (agent_id, session_id) DO NOTHING
RETURNING *
