-- $1 agent, $2 model, $3 vector, $4 how many. An exact scan of the agent's own vectors, from the covering index alone.
WITH nearest AS MATERIALIZED (
    SELECT id, embedding <=> $3::halfvec AS distance FROM {schema}.event_embeddings
    WHERE agent_id = $1 AND model = $2
    ORDER BY distance LIMIT $4
)
SELECT n.distance, e.id, e.opening, e.sequence, e.index, e.type, e.role, e.content, e.payload, e.metadata, e.session_id,
       e.at, e.accepted_at
FROM nearest n JOIN {schema}.memory_events e ON e.agent_id = $1 AND e.id = n.id
ORDER BY n.distance
