-- $1 agent, $2 session, $3 request, $4 instance. No row: it was erased, asked for anew, or taken over. Held until the end of the
-- transaction.
SELECT keys FROM {schema}.distillation_queue
WHERE agent_id = $1 AND session_id = $2 AND request = $3 AND claimed_by = $4 FOR UPDATE
