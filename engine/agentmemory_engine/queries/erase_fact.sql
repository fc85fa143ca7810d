-- $1 agent, $2 origin, $3 key: every version of it, and with a key all that was ever believed under it
DELETE FROM {schema}.agent_knowledge WHERE agent_id = $1 AND (origin = $2 OR key = $3) RETURNING id
