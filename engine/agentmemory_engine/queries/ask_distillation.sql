-- $1 agent, $2 session, $3 shard: facts are to be drawn from all of it, whatever was drawn or given up before
INSERT INTO {schema}.distillation_queue (agent_id, session_id, shard) VALUES ($1, $2, $3)
ON CONFLICT (agent_id, session_id) DO UPDATE
SET request = gen_random_uuid(), asked_at = clock_timestamp(), due_at = clock_timestamp(), claimed_until = '-infinity',
    claimed_by = NULL, attempts = 0, opening = NULL, sequence = NULL, index = NULL, keys = '{}', refused = NULL,
    given_up = false
RETURNING *
