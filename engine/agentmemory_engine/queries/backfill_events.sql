-- $1 model, $2 how many events to look at: the next ones of its back-fill, and which of them have no vector. `ours` is 0 where
-- another sidecar is looking, or nothing is left to look at.
WITH state AS (
    SELECT after_agent, after_id FROM {schema}.embedding_models
    WHERE model = $1 AND kept AND completed_at IS NULL AND stage = 0 FOR UPDATE SKIP LOCKED
), page AS (
    SELECT e.* FROM state s CROSS JOIN LATERAL (
        SELECT agent_id, id, opening, sequence, content IS NOT NULL OR payload IS NOT NULL AS has_text
        FROM {schema}.memory_events WHERE (agent_id, id) > (s.after_agent, s.after_id) ORDER BY agent_id, id LIMIT $2
    ) e
), missing AS (
    SELECT * FROM page p WHERE has_text AND NOT EXISTS (
        SELECT FROM {schema}.event_embeddings v WHERE v.agent_id = p.agent_id AND v.model = $1 AND v.id = p.id
    )
), last AS (
    SELECT agent_id, id FROM page ORDER BY agent_id DESC, id DESC LIMIT 1
)
SELECT (SELECT count(*) FROM state) AS ours, (SELECT count(*) FROM page) AS scanned,
       (SELECT agent_id FROM last) AS last_agent, (SELECT id FROM last) AS last_id,
       array(SELECT agent_id FROM missing ORDER BY agent_id, id) AS agents,
       array(SELECT id FROM missing ORDER BY agent_id, id) AS ids,
       array(SELECT opening FROM missing ORDER BY agent_id, id) AS openings,
       array(SELECT sequence FROM missing ORDER BY agent_id, id) AS sequences
