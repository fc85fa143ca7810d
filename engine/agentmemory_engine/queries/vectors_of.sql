-- $1 agent, $2 model, $3 how many are counted at most. Their order has them counted from the key.
SELECT count(*) AS vectors FROM (
    SELECT id FROM {schema}.event_embeddings WHERE agent_id = $1 AND model = $2 ORDER BY id LIMIT $3
) AS first
