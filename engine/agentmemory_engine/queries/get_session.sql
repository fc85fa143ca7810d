-- $1 agent, $2 session, $3 hash of the agent. One that is left of an erasure under way is not there.
SELECT * FROM {schema}.agent_sessions s
WHERE agent_id = $1 AND session_id = $2
  AND NOT (derived AND EXISTS (SELECT FROM {schema}.erasures e WHERE e.agent = $3 AND e.erased_at IS NULL))
