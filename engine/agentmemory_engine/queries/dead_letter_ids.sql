-- $1 agent
SELECT id FROM {schema}.dead_letters WHERE agent_id = $1
