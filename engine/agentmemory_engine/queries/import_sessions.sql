-- $1 agent, $2 sessions, $3 started, $4 last event, $5 ended, $6 metadata. What is there already is completed only.
WITH given AS (
    SELECT * FROM unnest($2::text[], $3::timestamptz[], $4::timestamptz[], $5::timestamptz[], $6::text[])
        AS g (session_id, started_at, last_event_at, ended_at, metadata)
), stored AS (
    INSERT INTO {schema}.agent_sessions AS s (agent_id, session_id, started_at, last_event_at, ended_at, metadata)
    SELECT $1, session_id, started_at, last_event_at, ended_at, metadata::jsonb FROM given ORDER BY session_id
    ON CONFLICT (agent_id, session_id) DO UPDATE
    SET derived = false, started_at = least(s.started_at, excluded.started_at),
        last_event_at = greatest(s.last_event_at, excluded.last_event_at),
        ended_at = coalesce(s.ended_at, excluded.ended_at), metadata = coalesce(s.metadata, excluded.metadata)
    WHERE excluded.started_at < s.started_at OR (s.last_event_at IS NULL AND excluded.last_event_at IS NOT NULL)
       OR excluded.last_event_at > s.last_event_at
       OR (s.ended_at IS NULL AND excluded.ended_at IS NOT NULL) OR (s.metadata IS NULL AND excluded.metadata IS NOT NULL)
    RETURNING session_id
)
SELECT count(*) FROM stored
