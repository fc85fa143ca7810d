-- $1 agent, $2 how long events are kept (interval), $3 how many at most: of its first events, whose order is that of
-- acceptance. Their vectors go with them, and those that wait for one need none.
WITH listed AS (
    SELECT id FROM (
        SELECT id, accepted_at FROM {schema}.memory_events WHERE agent_id = $1 ORDER BY opening, sequence, index LIMIT $3
    ) first
    WHERE accepted_at < now() - $2::interval
), queue AS (
    DELETE FROM {schema}.embedding_queue q USING listed l WHERE q.agent_id = $1 AND q.id = l.id
), events AS (
    DELETE FROM {schema}.memory_events e USING listed l WHERE e.agent_id = $1 AND e.id = l.id RETURNING e.id
)
SELECT count(*) FROM events
