-- $1 model: recall goes by it from now on, where it covers all that there is. $2 whether from a model that is kept up, too.
INSERT INTO {schema}.embedding_switch (model)
SELECT model FROM {schema}.embedding_models WHERE model = $1 AND kept AND completed_at IS NOT NULL
ON CONFLICT (only_row) DO UPDATE SET model = excluded.model, switched_at = now()
WHERE embedding_switch.model <> excluded.model
  AND ($2 OR NOT EXISTS (SELECT FROM {schema}.embedding_models m WHERE m.model = embedding_switch.model AND m.kept))
RETURNING model
