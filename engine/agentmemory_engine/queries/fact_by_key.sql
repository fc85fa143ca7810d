-- $1 agent, $2 key: what is believed now
SELECT * FROM {schema}.agent_knowledge WHERE agent_id = $1 AND key = $2 AND believed_until IS NULL
