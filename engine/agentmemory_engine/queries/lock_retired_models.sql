-- The models that are not kept up, none of which can be taken up again until the end of the transaction
SELECT model, unwanted_at IS NOT NULL AND removed_at IS NULL AS unwanted
FROM {schema}.embedding_models WHERE NOT kept FOR UPDATE SKIP LOCKED
