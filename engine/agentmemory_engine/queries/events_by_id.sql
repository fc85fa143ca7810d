-- $1 agent, $2 ids
SELECT id, opening, sequence, index, type, role, content, payload, metadata, session_id, at, accepted_at
FROM {schema}.memory_events WHERE agent_id = $1 AND id = ANY ($2::uuid[])
