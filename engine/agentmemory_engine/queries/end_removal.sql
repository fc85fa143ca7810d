-- $1 models: their last vectors are gone
UPDATE {schema}.embedding_models SET removed_at = now() WHERE model = ANY ($1::smallint[]) AND NOT kept
