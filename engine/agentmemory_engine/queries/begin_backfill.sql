-- $1 model: how much there is to go through; of large tables, about.
UPDATE {schema}.embedding_models SET total = (
    SELECT CASE WHEN reltuples > 100000 THEN reltuples::bigint ELSE (SELECT count(*) FROM {schema}.memory_events) END
    FROM pg_class WHERE oid = '{schema}.memory_events'::regclass
) + (
    SELECT CASE WHEN reltuples > 100000 THEN reltuples::bigint ELSE (SELECT count(*) FROM {schema}.agent_knowledge) END
    FROM pg_class WHERE oid = '{schema}.agent_knowledge'::regclass
)
WHERE model = $1 AND total IS NULL AND kept AND completed_at IS NULL
