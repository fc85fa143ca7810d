-- As drop_vectors_of_events.sql, for facts: $1 models, ($2, $3) the last one, $4 how many
WITH page AS (
    SELECT agent_id, id FROM {schema}.agent_knowledge WHERE (agent_id, id) > ($2, $3) ORDER BY agent_id, id LIMIT $4
), vectors AS (
    DELETE FROM {schema}.knowledge_embeddings v USING page p
    WHERE v.agent_id = p.agent_id AND v.id = p.id AND v.model = ANY ($1::smallint[])
), notes AS (
    DELETE FROM {schema}.knowledge_queue q USING page p
    WHERE q.agent_id = p.agent_id AND q.id = p.id AND q.model = ANY ($1::smallint[])
)
SELECT agent_id, id FROM page ORDER BY agent_id DESC, id DESC LIMIT 1
