-- As queue_backfill_events.sql, for facts: $1 model, $2 agents, $3 ids, $4 shards. One that is being erased is waited for, and
-- not queued.
INSERT INTO {schema}.knowledge_queue (agent_id, id, model, shard, backfill)
SELECT t.agent_id, t.id, $1, t.shard, true
FROM unnest($2::text[], $3::uuid[], $4::smallint[]) AS t (agent_id, id, shard)
JOIN (
    SELECT agent_id, id FROM {schema}.agent_knowledge
    WHERE (agent_id, id) IN (SELECT * FROM unnest($2::text[], $3::uuid[])) ORDER BY agent_id, id FOR KEY SHARE
) f ON f.agent_id = t.agent_id AND f.id = t.id
ON CONFLICT DO NOTHING
