-- $1 agents, $2 sessions, $3 first and $4 last time an event of theirs happened, $5 hashes of the agents, ($6, $7) the last
-- entry that names them. A session that only erased events name, or such as are to be, is left out. One that has ended stays so.
INSERT INTO {schema}.agent_sessions AS s (agent_id, session_id, started_at, last_event_at, derived)
SELECT i.agent_id, i.session_id, i.first_at, i.last_at, true
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[], $5::bytea[], $6::bigint[], $7::bigint[])
    WITH ORDINALITY AS i (agent_id, session_id, first_at, last_at, hash, opening, sequence, place)
WHERE NOT EXISTS (SELECT FROM {schema}.tombstones t
                  WHERE t.agent = i.hash AND (i.opening, i.sequence) <= (t.opening, t.sequence))
  AND NOT EXISTS (SELECT FROM {schema}.erasures e
                  WHERE e.agent = i.hash AND (i.opening, i.sequence) <= (e.opening, e.sequence))
ORDER BY i.place
ON CONFLICT (agent_id, session_id) DO UPDATE
SET started_at = least(s.started_at, excluded.started_at), last_event_at = greatest(s.last_event_at, excluded.last_event_at)
WHERE excluded.started_at < s.started_at OR s.last_event_at IS NULL OR excluded.last_event_at > s.last_event_at
