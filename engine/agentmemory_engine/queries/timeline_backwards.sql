-- $1 agent, ($2, $3, $4) before this place (NULL: from the end), $5 since, $6 until (exclusive), $7 types, $8 session,
-- $9 role, $10 metadata it contains, $11 limit
SELECT id, opening, sequence, index, type, role, content, payload, metadata, session_id, at, accepted_at
FROM {schema}.memory_events
WHERE agent_id = $1
  AND ($2::bigint IS NULL OR (opening, sequence, index) < ($2, $3::bigint, $4::smallint))
  AND ($5::timestamptz IS NULL OR at >= $5) AND ($6::timestamptz IS NULL OR at < $6)
  AND ($7::text[] IS NULL OR type = ANY ($7)) AND ($8::text IS NULL OR session_id = $8)
  AND ($9::text IS NULL OR role = $9) AND ($10::jsonb IS NULL OR metadata @> $10::jsonb)
ORDER BY opening DESC, sequence DESC, index DESC LIMIT $11
