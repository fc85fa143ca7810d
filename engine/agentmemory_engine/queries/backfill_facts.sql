-- As backfill_events.sql, for facts: $1 model, $2 how many
WITH state AS (
    SELECT after_agent, after_id FROM {schema}.embedding_models
    WHERE model = $1 AND kept AND completed_at IS NULL AND stage = 1 FOR UPDATE SKIP LOCKED
), page AS (
    SELECT f.* FROM state s CROSS JOIN LATERAL (
        SELECT agent_id, id FROM {schema}.agent_knowledge
        WHERE (agent_id, id) > (s.after_agent, s.after_id) ORDER BY agent_id, id LIMIT $2
    ) f
), missing AS (
    SELECT * FROM page p WHERE NOT EXISTS (
        SELECT FROM {schema}.knowledge_embeddings v WHERE v.agent_id = p.agent_id AND v.model = $1 AND v.id = p.id
    )
), last AS (
    SELECT agent_id, id FROM page ORDER BY agent_id DESC, id DESC LIMIT 1
)
SELECT (SELECT count(*) FROM state) AS ours, (SELECT count(*) FROM page) AS scanned,
       (SELECT agent_id FROM last) AS last_agent, (SELECT id FROM last) AS last_id,
       array(SELECT agent_id FROM missing ORDER BY agent_id, id) AS agents,
       array(SELECT id FROM missing ORDER BY agent_id, id) AS ids
