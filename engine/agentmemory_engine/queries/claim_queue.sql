-- $1 how many, $2 for how long, $3 instance, $4 from this shard on: the first one with anything to embed; $5 model. Shards
-- take turns. {which}: what is new, or what a back-fill found.
-- A short transaction: nothing is held while the provider works.
WITH claimed AS (
    UPDATE {schema}.embedding_queue q SET claimed_until = now() + $2, claimed_by = $3
    FROM (
        SELECT agent_id, id FROM {schema}.embedding_queue
        WHERE model = $5 AND {which} AND unembeddable IS NULL AND claimed_until < now() AND shard = (
            SELECT min(shard) FROM {schema}.embedding_queue
            WHERE model = $5 AND {which} AND unembeddable IS NULL AND claimed_until < now() AND shard >= $4
        )
        ORDER BY opening, sequence LIMIT $1 FOR UPDATE SKIP LOCKED
    ) free
    WHERE q.agent_id = free.agent_id AND q.id = free.id AND q.model = $5
    RETURNING q.agent_id, q.id, q.attempts, q.shard
)
SELECT c.agent_id, c.id, c.attempts, c.shard, e.content, e.payload
FROM claimed c LEFT JOIN {schema}.memory_events e ON e.agent_id = c.agent_id AND e.id = c.id
