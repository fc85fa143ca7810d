-- $1 agent, $2 session, $3 for how long it stays claimed, ($4, $5, $6) the last event that is done, $7 keys of the facts of it
UPDATE {schema}.distillation_queue
SET claimed_until = now() + $3, attempts = 0, refused = NULL, opening = $4, sequence = $5, index = $6,
    keys = keys || $7::text[]
WHERE agent_id = $1 AND session_id = $2
