-- $1 agent, $2 id
DELETE FROM {schema}.dead_letters WHERE agent_id = $1 AND id = $2 RETURNING *
