-- $1 agent, $2 origin: the version that is believed now
SELECT id FROM {schema}.agent_knowledge WHERE agent_id = $1 AND origin = $2 AND believed_until IS NULL
