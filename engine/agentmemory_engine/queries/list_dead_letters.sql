-- ($1, $2, $3) after this one (NULL: from the start), $4 limit. What an accepted erasure takes is not shown any more.
SELECT * FROM {schema}.dead_letters d
WHERE ($1::timestamptz IS NULL OR (dead_at, agent_id, id) > ($1, $2::text, $3::uuid))
  AND NOT EXISTS (SELECT FROM {schema}.erasures e
                  WHERE e.erased_at IS NULL AND e.agent_id = d.agent_id AND (d.opening, d.sequence) <= (e.opening, e.sequence))
ORDER BY dead_at, agent_id, id LIMIT $4
