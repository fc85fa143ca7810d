-- $1 agent, $2 sessions: those of them that are here; $3 hash of the agent, as in get_session.sql
SELECT session_id FROM {schema}.agent_sessions
WHERE agent_id = $1 AND session_id = ANY ($2)
  AND NOT (derived AND EXISTS (SELECT FROM {schema}.erasures e WHERE e.agent = $3 AND e.erased_at IS NULL))
