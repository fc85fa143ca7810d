-- $1 agents, $2 sessions, $3 first and $4 last time an event of theirs happened. One that has ended stays so.
INSERT INTO {schema}.agent_sessions AS s (agent_id, session_id, started_at, last_event_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[])
ON CONFLICT (agent_id, session_id) DO UPDATE
SET started_at = least(s.started_at, excluded.started_at), last_event_at = greatest(s.last_event_at, excluded.last_event_at)
WHERE excluded.started_at < s.started_at OR s.last_event_at IS NULL OR excluded.last_event_at > s.last_event_at
