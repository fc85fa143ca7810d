-- $1 agents, $2 their hashes: up to which version Postgres has the document of each, by a snapshot or by a tombstone
SELECT DISTINCT ON (agent_id) agent_id, opening, sequence
FROM (
    SELECT agent_id, opening, sequence FROM {schema}.working_snapshots WHERE agent_id = ANY ($1)
    UNION ALL
    SELECT a.agent_id, t.opening, t.sequence
    FROM unnest($1::text[], $2::bytea[]) AS a (agent_id, hash) JOIN {schema}.tombstones t ON t.agent = a.hash
) known
ORDER BY agent_id, opening DESC, sequence DESC
