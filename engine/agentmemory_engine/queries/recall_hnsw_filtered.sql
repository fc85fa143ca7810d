-- $1 to $4 as in recall_hnsw.sql, then as in timeline.sql: $5 since, $6 until, $7 types, $8 session, $9 role, $10 metadata
WITH nearest AS MATERIALIZED (
    SELECT v.id, v.{vector}::halfvec({dimensions}) <=> $2::halfvec({dimensions}) AS distance
    FROM {schema}.event_embeddings v JOIN {schema}.memory_events e ON e.agent_id = v.agent_id AND e.id = v.id
    WHERE v.agent_id = $1 AND v.model = {model}
      AND ($5::timestamptz IS NULL OR e.at >= $5) AND ($6::timestamptz IS NULL OR e.at < $6)
      AND ($7::text[] IS NULL OR e.type = ANY ($7)) AND ($8::text IS NULL OR e.session_id = $8)
      AND ($9::text IS NULL OR e.role = $9) AND ($10::jsonb IS NULL OR e.metadata @> $10::jsonb)
    ORDER BY v.{vector}::halfvec({dimensions}) <=> $2::halfvec({dimensions}) LIMIT $3
), best AS (
    SELECT id, min(distance) AS distance FROM nearest GROUP BY id ORDER BY distance LIMIT $4
)
SELECT (SELECT count(*) FROM nearest) AS compared, b.distance, e.id, e.opening, e.sequence, e.index, e.type, e.role,
       e.content, e.payload, e.metadata, e.session_id, e.at, e.accepted_at
FROM best b JOIN {schema}.memory_events e ON e.agent_id = $1 AND e.id = b.id
ORDER BY b.distance
