-- As store_embeddings.sql, for facts. One that is being erased is waited for, and gets no vector.
WITH stored AS (
    INSERT INTO {schema}.knowledge_embeddings (agent_id, id, model, chunk, {vector})
    SELECT v.agent_id, v.id, $5, v.chunk, v.embedding
    FROM unnest($1::text[], $2::uuid[], $3::smallint[], $4::halfvec[]) AS v (agent_id, id, chunk, embedding)
    JOIN (
        SELECT agent_id, id FROM {schema}.agent_knowledge
        WHERE (agent_id, id) IN (SELECT * FROM unnest($6::text[], $7::uuid[])) ORDER BY agent_id, id FOR KEY SHARE
    ) f ON f.agent_id = v.agent_id AND f.id = v.id
    ON CONFLICT DO NOTHING
)
DELETE FROM {schema}.knowledge_queue q USING unnest($6::text[], $7::uuid[]) AS d (agent_id, id)
WHERE q.agent_id = d.agent_id AND q.id = d.id AND q.model = $5
