-- $1 agent, $2 model, $3 vector, $4 how many, then as in timeline.sql: $5 since, $6 until, $7 types, $8 session,
-- $9 metadata. Each event of the agent that passes is compared; none is left out for being far.
WITH nearest AS MATERIALIZED (
    SELECT v.id, v.embedding <=> $3::halfvec AS distance
    FROM {schema}.event_embeddings v JOIN {schema}.memory_events e ON e.agent_id = v.agent_id AND e.id = v.id
    WHERE v.agent_id = $1 AND v.model = $2
      AND ($5::timestamptz IS NULL OR e.at >= $5) AND ($6::timestamptz IS NULL OR e.at < $6)
      AND ($7::text[] IS NULL OR e.type = ANY ($7)) AND ($8::text IS NULL OR e.session_id = $8)
      AND ($9::jsonb IS NULL OR e.metadata @> $9::jsonb)
    ORDER BY distance LIMIT $4
)
SELECT n.distance, e.id, e.opening, e.sequence, e.index, e.type, e.role, e.content, e.payload, e.metadata, e.session_id,
       e.at, e.accepted_at
FROM nearest n JOIN {schema}.memory_events e ON e.agent_id = $1 AND e.id = n.id
ORDER BY n.distance
