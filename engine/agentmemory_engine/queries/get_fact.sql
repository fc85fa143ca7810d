-- $1 agent, $2 id
SELECT * FROM {schema}.agent_knowledge WHERE agent_id = $1 AND id = $2
