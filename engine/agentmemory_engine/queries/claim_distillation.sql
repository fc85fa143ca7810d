-- $1 for how long, $2 instance: the session that has waited the longest. A short transaction: nothing is held while the model
-- answers.
UPDATE {schema}.distillation_queue q SET claimed_until = now() + $1, claimed_by = $2
FROM (
    SELECT agent_id, session_id FROM {schema}.distillation_queue
    WHERE NOT given_up AND due_at <= now() AND claimed_until < now()
    ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED
) free
WHERE q.agent_id = free.agent_id AND q.session_id = free.session_id
RETURNING q.*
