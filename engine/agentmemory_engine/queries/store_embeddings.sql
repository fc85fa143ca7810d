-- $1 agents, $2 ids, $3 chunks, $4 vectors, $5 model; $6 agents and $7 ids that leave the queue.
-- An event that was erased meanwhile gets no vector; one that is being erased now is waited for.
WITH living AS (
    SELECT e.agent_id, e.id
    FROM {schema}.memory_events e JOIN unnest($6::text[], $7::uuid[]) AS d (agent_id, id) USING (agent_id, id)
    ORDER BY e.agent_id, e.id FOR KEY SHARE OF e
), stored AS (
    INSERT INTO {schema}.event_embeddings (agent_id, id, model, chunk, {vector})
    SELECT v.agent_id, v.id, $5, v.chunk, v.embedding
    FROM unnest($1::text[], $2::uuid[], $3::smallint[], $4::halfvec[]) AS v (agent_id, id, chunk, embedding)
    JOIN living e ON e.agent_id = v.agent_id AND e.id = v.id
    ON CONFLICT DO NOTHING
)
DELETE FROM {schema}.embedding_queue q USING unnest($6::text[], $7::uuid[]) AS d (agent_id, id)
WHERE q.agent_id = d.agent_id AND q.id = d.id AND q.model = $5
