-- $1 agent, ($2, $3) version
DELETE FROM {schema}.working_snapshots WHERE agent_id = $1 AND (opening, sequence) = ($2, $3)
