-- $1 model: its vectors are to go, unless it is kept up or recall goes by it. No row: there is no such model.
WITH asked AS (
    UPDATE {schema}.embedding_models m SET unwanted_at = coalesce(unwanted_at, now())
    WHERE m.model = $1 AND NOT m.kept AND NOT EXISTS (SELECT FROM {schema}.embedding_switch s WHERE s.model = $1)
    RETURNING m.model
)
SELECT EXISTS (SELECT FROM asked) AS removed FROM {schema}.embedding_models WHERE model = $1
