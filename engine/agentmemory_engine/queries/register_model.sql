-- $1 name, $2 dimensions
WITH added AS (
    INSERT INTO {schema}.embedding_models (name, dimensions) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING RETURNING model
)
SELECT model FROM added UNION ALL SELECT model FROM {schema}.embedding_models WHERE name = $1 LIMIT 1
