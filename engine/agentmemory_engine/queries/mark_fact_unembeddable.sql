-- $1 agent, $2 id, $3 model, $4 why
UPDATE {schema}.knowledge_queue SET unembeddable = $4, claimed_by = NULL WHERE agent_id = $1 AND id = $2 AND model = $3
