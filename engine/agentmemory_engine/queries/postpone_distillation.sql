-- $1 agent, $2 session, $3 request, $4 instance, $5 for how long, $6 why (NULL: not for its own sake), $7 whether it is given up
UPDATE {schema}.distillation_queue
SET claimed_until = '-infinity', claimed_by = NULL, due_at = now() + $5,
    attempts = attempts + CASE WHEN $6::text IS NULL THEN 0 ELSE 1 END, refused = coalesce($6, refused), given_up = $7
WHERE agent_id = $1 AND session_id = $2 AND request = $3 AND claimed_by = $4
