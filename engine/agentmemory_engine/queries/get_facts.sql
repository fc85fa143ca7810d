-- $1 agent, $2 ids
SELECT * FROM {schema}.agent_knowledge WHERE agent_id = $1 AND id = ANY ($2)
