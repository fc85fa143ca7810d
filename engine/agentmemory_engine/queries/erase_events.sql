-- $1 agent, $2 its hash, ($3, $4) entry, $5 how many at most (NULL: all). Vectors go with their events.
WITH listed AS (
    SELECT id FROM {schema}.memory_events WHERE agent_id = $1 AND (opening, sequence) <= ($3, $4)
    ORDER BY opening, sequence, index LIMIT $5
), vectors AS (
    SELECT count(*) AS vectors FROM {schema}.event_embeddings v JOIN listed l ON v.agent_id = $1 AND v.id = l.id
), queue AS (
    DELETE FROM {schema}.embedding_queue q USING listed l WHERE q.agent_id = $1 AND q.id = l.id
), events AS (
    DELETE FROM {schema}.memory_events e USING listed l WHERE e.agent_id = $1 AND e.id = l.id RETURNING e.id
), counted AS (
    UPDATE {schema}.erasures
    SET events = events + (SELECT count(*) FROM events), embeddings = embeddings + (SELECT vectors FROM vectors)
    WHERE (agent, opening, sequence) = ($2, $3, $4)
)
SELECT count(*) FROM events
