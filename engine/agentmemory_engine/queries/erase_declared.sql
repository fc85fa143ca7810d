-- $1 agent, $2 its hash, ($3, $4) entry, $5 how many of each at most. What has no position, since it is written in the request:
-- what is there now goes; vectors and the queue go with their facts. Both in their order, as others lock them, so that neither
-- waits for the other. Answers how many went.
WITH known AS (
    SELECT id FROM {schema}.agent_knowledge WHERE agent_id = $1 ORDER BY id LIMIT $5 FOR UPDATE
), knowledge AS (
    DELETE FROM {schema}.agent_knowledge f USING known k WHERE f.agent_id = $1 AND f.id = k.id RETURNING f.id
), listed AS (
    SELECT session_id FROM {schema}.agent_sessions WHERE agent_id = $1 ORDER BY session_id LIMIT $5 FOR UPDATE
), sessions AS (
    DELETE FROM {schema}.agent_sessions s USING listed l WHERE s.agent_id = $1 AND s.session_id = l.session_id
    RETURNING s.session_id
), counted AS (
    UPDATE {schema}.erasures
    SET knowledge = knowledge + (SELECT count(*) FROM knowledge), sessions = sessions + (SELECT count(*) FROM sessions)
    WHERE (agent, opening, sequence) = ($2, $3, $4)
)
SELECT (SELECT count(*) FROM knowledge) + (SELECT count(*) FROM sessions)
