-- $1 agent, $2 id. What an accepted erasure takes is not shown any more.
SELECT * FROM {schema}.dead_letters d
WHERE agent_id = $1 AND id = $2
  AND NOT EXISTS (SELECT FROM {schema}.erasures e
                  WHERE e.erased_at IS NULL AND e.agent_id = d.agent_id AND (d.opening, d.sequence) <= (e.opening, e.sequence))
