-- $1 agents, $2 their hashes. The newest snapshot and the tombstone of each, and when the agent was last active.
SELECT a.agent_id, s.opening, s.sequence,
       t.opening AS erased_opening, t.sequence AS erased_sequence,
       greatest(s.taken_at, (SELECT e.accepted_at FROM {schema}.memory_events e WHERE e.agent_id = a.agent_id
                             ORDER BY e.opening DESC, e.sequence DESC, e.index DESC LIMIT 1)) AS active_at
FROM unnest($1::text[], $2::bytea[]) AS a (agent_id, hash)
LEFT JOIN LATERAL (
    SELECT * FROM {schema}.working_snapshots w WHERE w.agent_id = a.agent_id
    ORDER BY w.opening DESC, w.sequence DESC LIMIT 1
) s ON true
LEFT JOIN {schema}.tombstones t ON t.agent = a.hash
