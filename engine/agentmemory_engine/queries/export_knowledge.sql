-- $1 agent: every fact with its history, as whole rows
SELECT (to_jsonb(k) - 'agent_id')::text AS fact FROM {schema}.agent_knowledge k
WHERE agent_id = $1 ORDER BY believed_from, id
