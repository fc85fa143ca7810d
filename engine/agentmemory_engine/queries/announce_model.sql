-- $1 instance, $2 model (NULL: it embeds nothing). Answers whether the model is kept up.
INSERT INTO {schema}.model_users (instance, model) VALUES ($1, $2::smallint)
ON CONFLICT (instance) DO UPDATE SET model = $2::smallint, seen_at = now()
RETURNING $2::smallint IS NULL OR EXISTS (SELECT FROM {schema}.embedding_models WHERE model = $2::smallint AND kept) AS kept
