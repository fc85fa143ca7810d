-- $1 agent, $2 its hash: the sessions that are left of an erasure under way, so that what is written now does not complete them
WITH listed AS (
    SELECT session_id FROM {schema}.agent_sessions
    WHERE agent_id = $1 AND derived
      AND EXISTS (SELECT FROM {schema}.erasures e WHERE e.agent = $2 AND e.erased_at IS NULL)
    ORDER BY session_id FOR UPDATE
)
DELETE FROM {schema}.agent_sessions s USING listed l WHERE s.agent_id = $1 AND s.session_id = l.session_id
