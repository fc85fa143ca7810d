-- $1 agent, $2 session
SELECT * FROM {schema}.agent_sessions WHERE agent_id = $1 AND session_id = $2 FOR UPDATE
