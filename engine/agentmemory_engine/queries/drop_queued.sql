-- $1 models, $2 how many rows at most: what waits for a vector that nobody makes
WITH events AS (
    DELETE FROM {schema}.embedding_queue WHERE (agent_id, id, model) IN (
        SELECT agent_id, id, model FROM {schema}.embedding_queue
        WHERE model = ANY ($1::smallint[]) AND unembeddable IS NULL LIMIT $2
    ) RETURNING id
), facts AS (
    DELETE FROM {schema}.knowledge_queue WHERE (agent_id, id, model) IN (
        SELECT agent_id, id, model FROM {schema}.knowledge_queue
        WHERE model = ANY ($1::smallint[]) AND unembeddable IS NULL LIMIT $2
    ) RETURNING id
)
SELECT (SELECT count(*) FROM events) + (SELECT count(*) FROM facts) AS rows
