-- $1 agent, $2 whether to leave out those that only events of a former life name
SELECT session_id, started_at, last_event_at, ended_at, metadata FROM {schema}.agent_sessions
WHERE agent_id = $1 AND NOT ($2 AND derived) ORDER BY session_id
