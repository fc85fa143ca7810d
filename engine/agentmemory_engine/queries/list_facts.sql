-- $1 agent, $2 key, $3 topics, $4 metadata it contains, $5 least confidence, $6 when it was believed (NULL: now), $7 whether
-- what is no longer believed counts as well, $8 only versions of the fact that has one of this id, ($9, $10) before this
-- place (NULL: from the newest), $11 limit. as_of: all that was written up to then is seen here, and nothing later, as an
-- agent's knowledge has one writer at a time.
SELECT *, (SELECT greatest(max(believed_from), max(believed_until)) FROM {schema}.agent_knowledge
           WHERE agent_id = $1) AS as_of
FROM {schema}.agent_knowledge
WHERE agent_id = $1
  AND ($2::text IS NULL OR key = $2) AND ($3::text[] IS NULL OR topic = ANY ($3))
  AND ($4::jsonb IS NULL OR metadata @> $4::jsonb) AND ($5::double precision IS NULL OR confidence >= $5)
  AND CASE WHEN $6::timestamptz IS NOT NULL THEN believed_from <= $6 AND (believed_until IS NULL OR believed_until > $6)
           ELSE $7::boolean OR believed_until IS NULL END
  AND ($8::uuid IS NULL OR origin = (SELECT origin FROM {schema}.agent_knowledge WHERE agent_id = $1 AND id = $8))
  AND ($9::timestamptz IS NULL OR (believed_from, id) < ($9, $10::uuid))
ORDER BY believed_from DESC, id DESC LIMIT $11
