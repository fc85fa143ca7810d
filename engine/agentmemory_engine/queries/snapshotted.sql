-- $1 agents: the version of the newest snapshot of each
SELECT DISTINCT ON (agent_id) agent_id, opening, sequence FROM {schema}.working_snapshots
WHERE agent_id = ANY ($1) ORDER BY agent_id, opening DESC, sequence DESC
