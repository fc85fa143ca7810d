-- $1 how long nobody has been seen (interval) who embeds by a model: it is not kept up any more. Its vectors stay; were it
-- wanted again, its back-fill would find what has come since.
WITH gone AS (
    DELETE FROM {schema}.model_users WHERE seen_at < now() - $1::interval
)
UPDATE {schema}.embedding_models m
SET kept = false, completed_at = NULL, stage = 0, after_agent = DEFAULT, after_id = DEFAULT, scanned = 0, total = NULL
WHERE m.kept AND NOT EXISTS (
    SELECT FROM {schema}.model_users u WHERE u.model = m.model AND u.seen_at >= now() - $1::interval
)
RETURNING m.name
