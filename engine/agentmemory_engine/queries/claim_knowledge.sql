-- As claim_queue.sql, for facts: $1 how many, $2 for how long, $3 instance, $4 from this shard on, $5 model
WITH claimed AS (
    UPDATE {schema}.knowledge_queue q SET claimed_until = now() + $2, claimed_by = $3
    FROM (
        SELECT agent_id, id FROM {schema}.knowledge_queue
        WHERE model = $5 AND {which} AND unembeddable IS NULL AND claimed_until < now() AND shard = (
            SELECT min(shard) FROM {schema}.knowledge_queue
            WHERE model = $5 AND {which} AND unembeddable IS NULL AND claimed_until < now() AND shard >= $4
        )
        ORDER BY queued_at LIMIT $1 FOR UPDATE SKIP LOCKED
    ) free
    WHERE q.agent_id = free.agent_id AND q.id = free.id AND q.model = $5
    RETURNING q.agent_id, q.id, q.attempts, q.shard
)
SELECT c.agent_id, c.id, c.attempts, c.shard, f.topic || ': ' || f.content AS content, NULL::json AS payload
FROM claimed c LEFT JOIN {schema}.agent_knowledge f ON f.agent_id = c.agent_id AND f.id = c.id
