-- $1 agent, $2 to $6 as in list_facts.sql, $7 model and $8 vector of the query (NULL: none). All that is believed at that
-- time, since what a word is worth depends on all of it; `passes` says which may be found. A fact without a vector of the
-- model has no distance, and one with several the least. `filling`: what was there before the model may have none yet.
SELECT f.id, f.believed_from,
       ($2::text IS NULL OR f.key = $2) AND ($3::text[] IS NULL OR f.topic = ANY ($3))
       AND ($4::jsonb IS NULL OR coalesce(f.metadata @> $4::jsonb, false))
       AND ($5::double precision IS NULL OR f.confidence >= $5) AS passes,
       (SELECT min(v.{vector} <=> $8::halfvec) FROM {schema}.knowledge_embeddings v
        WHERE v.agent_id = $1 AND v.model = $7::smallint AND v.id = f.id) AS distance,
       EXISTS (SELECT FROM {schema}.embedding_models m WHERE m.model = $7::smallint AND m.completed_at IS NULL) AS filling
FROM {schema}.agent_knowledge f
WHERE f.agent_id = $1
  AND CASE WHEN $6::timestamptz IS NULL THEN f.believed_until IS NULL
           ELSE f.believed_from <= $6 AND (f.believed_until IS NULL OR f.believed_until > $6) END
