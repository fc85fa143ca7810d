-- $1 agent, $2 id. A clock that went back ends nothing before it began.
UPDATE {schema}.agent_knowledge
SET believed_until = greatest(clock_timestamp(), believed_from + interval '1 microsecond')
WHERE agent_id = $1 AND id = $2 AND believed_until IS NULL
RETURNING *
