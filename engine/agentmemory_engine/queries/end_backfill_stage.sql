-- $1 model, $2 the stage that it has gone through
UPDATE {schema}.embedding_models SET stage = $2 + 1, after_agent = DEFAULT, after_id = DEFAULT
WHERE model = $1 AND stage = $2 AND completed_at IS NULL
