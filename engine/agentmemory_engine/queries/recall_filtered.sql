-- $1 to $5 as in recall.sql, then as in timeline.sql: $6 since, $7 until, $8 types, $9 session, $10 role, $11 metadata.
-- Each event of the agent that passes is compared; none is left out for being far.
WITH nearest AS MATERIALIZED (
    SELECT v.id, v.{vector} <=> $3::halfvec AS distance
    FROM {schema}.event_embeddings v JOIN {schema}.memory_events e ON e.agent_id = v.agent_id AND e.id = v.id
    WHERE v.agent_id = $1 AND v.model = $2
      AND ($6::timestamptz IS NULL OR e.at >= $6) AND ($7::timestamptz IS NULL OR e.at < $7)
      AND ($8::text[] IS NULL OR e.type = ANY ($8)) AND ($9::text IS NULL OR e.session_id = $9)
      AND ($10::text IS NULL OR e.role = $10) AND ($11::jsonb IS NULL OR e.metadata @> $11::jsonb)
    ORDER BY distance LIMIT $4
), best AS (
    SELECT id, min(distance) AS distance FROM nearest GROUP BY id ORDER BY distance LIMIT $5
)
SELECT (SELECT count(*) FROM nearest) AS compared, b.distance, e.id, e.opening, e.sequence, e.index, e.type, e.role,
       e.content, e.payload, e.metadata, e.session_id, e.at, e.accepted_at
FROM best b JOIN {schema}.memory_events e ON e.agent_id = $1 AND e.id = b.id
ORDER BY b.distance
