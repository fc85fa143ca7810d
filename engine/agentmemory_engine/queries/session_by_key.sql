-- $1 agent, $2 digest of the key of the request that started it
SELECT * FROM {schema}.agent_sessions WHERE agent_id = $1 AND start_key = $2 LIMIT 1
