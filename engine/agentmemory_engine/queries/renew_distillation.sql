-- $1 agent, $2 session, $3 request, $4 instance, $5 for how long it stays claimed from now on. No row: it was erased, asked for
-- anew, or taken over.
UPDATE {schema}.distillation_queue SET claimed_until = now() + $5
WHERE agent_id = $1 AND session_id = $2 AND request = $3 AND claimed_by = $4
RETURNING session_id
