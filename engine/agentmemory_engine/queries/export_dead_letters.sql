-- $1 agent
SELECT * FROM {schema}.dead_letters WHERE agent_id = $1 ORDER BY opening, sequence, index, id
