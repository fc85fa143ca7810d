-- $1 agent, $2 vector, $3 how many vectors to look at, $4 how many events. As recall.sql, by the index of model {model}: it gives
-- them in about their order, and what it gave is sorted then.
WITH nearest AS MATERIALIZED (
    SELECT id, {vector}::halfvec({dimensions}) <=> $2::halfvec({dimensions}) AS distance
    FROM {schema}.event_embeddings WHERE agent_id = $1 AND model = {model}
    ORDER BY {vector}::halfvec({dimensions}) <=> $2::halfvec({dimensions}) LIMIT $3
), best AS (
    SELECT id, min(distance) AS distance FROM nearest GROUP BY id ORDER BY distance LIMIT $4
)
SELECT (SELECT count(*) FROM nearest) AS compared, b.distance, e.id, e.opening, e.sequence, e.index, e.type, e.role,
       e.content, e.payload, e.metadata, e.session_id, e.at, e.accepted_at
FROM best b JOIN {schema}.memory_events e ON e.agent_id = $1 AND e.id = b.id
ORDER BY b.distance
