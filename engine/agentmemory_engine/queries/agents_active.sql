-- $1 shard, $2 since, $3 the last agent of the page before, $4 size of a page. Agents whose working memory may still be
-- within its lease.
SELECT DISTINCT agent_id FROM {schema}.working_snapshots w
WHERE shard = $1 AND agent_id > $3
  AND (taken_at > $2 OR (SELECT e.accepted_at FROM {schema}.memory_events e WHERE e.agent_id = w.agent_id
                         ORDER BY e.opening DESC, e.sequence DESC, e.index DESC LIMIT 1) > $2)
ORDER BY agent_id LIMIT $4
