-- $1 agent, $2 sessions: those of them that are here
SELECT session_id FROM {schema}.agent_sessions WHERE agent_id = $1 AND session_id = ANY ($2)
