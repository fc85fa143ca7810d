-- $1 agent
DELETE FROM {schema}.distillation_queue WHERE agent_id = $1
