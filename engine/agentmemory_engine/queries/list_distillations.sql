-- ($1, $2, $3) after this one (NULL: from the start), $4 only those that were given up, or were not (NULL: both), $5 limit
SELECT agent_id, session_id, asked_at, attempts, refused, given_up
FROM {schema}.distillation_queue
WHERE ($1::timestamptz IS NULL OR (asked_at, agent_id, session_id) > ($1, $2::text, $3::text))
  AND ($4::boolean IS NULL OR given_up = $4)
ORDER BY asked_at, agent_id, session_id LIMIT $5
