-- $1 agent, $2 model, $3 vector, $4 how many vectors to look at, $5 how many events. An exact scan of the agent's own
-- vectors, from the covering index alone; a long event has several, of which the nearest counts.
WITH nearest AS MATERIALIZED (
    SELECT id, {vector} <=> $3::halfvec AS distance FROM {schema}.event_embeddings
    WHERE agent_id = $1 AND model = $2
    ORDER BY distance LIMIT $4
), best AS (
    SELECT id, min(distance) AS distance FROM nearest GROUP BY id ORDER BY distance LIMIT $5
)
SELECT (SELECT count(*) FROM nearest) AS compared, b.distance, e.id, e.opening, e.sequence, e.index, e.type, e.role,
       e.content, e.payload, e.metadata, e.session_id, e.at, e.accepted_at
FROM best b JOIN {schema}.memory_events e ON e.agent_id = $1 AND e.id = b.id
ORDER BY b.distance
