-- $1 name, $2 dimensions. Takes a number only for a name that is new. `kept`: what is new is queued for it.
WITH added AS (
    INSERT INTO {schema}.embedding_models (name, dimensions)
    SELECT $1, $2 WHERE NOT EXISTS (SELECT FROM {schema}.embedding_models WHERE name = $1)
    ON CONFLICT (name) DO NOTHING RETURNING model, kept
)
SELECT * FROM added UNION ALL SELECT model, kept FROM {schema}.embedding_models WHERE name = $1 LIMIT 1
