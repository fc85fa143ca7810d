-- $1 agent, $2 model, $3 how many are counted at most
SELECT count(*) AS vectors FROM (
    SELECT FROM {schema}.event_embeddings WHERE agent_id = $1 AND model = $2 LIMIT $3
) AS first
