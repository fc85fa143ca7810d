-- $1 agent, $2 session
DELETE FROM {schema}.distillation_queue WHERE agent_id = $1 AND session_id = $2 RETURNING session_id
