-- $1 agents and $2 ids, in pairs
SELECT e.agent_id, e.id, e.opening, e.sequence, e.index, e.type, e.role, e.content, e.payload, e.metadata, e.session_id,
       e.at, e.accepted_at
FROM unnest($1::text[], $2::uuid[]) AS w (agent_id, id)
JOIN {schema}.memory_events e ON e.agent_id = w.agent_id AND e.id = w.id
