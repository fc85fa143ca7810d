-- $1 agent, $2 id, $3 why
UPDATE {schema}.knowledge_queue SET unembeddable = $3, claimed_by = NULL WHERE agent_id = $1 AND id = $2
