-- $1 model (NULL: the one that recall goes by). `unembedded` is what is new; what a back-fill has left is told by models.sql.
WITH asked AS (
    SELECT coalesce($1::smallint, (SELECT model FROM {schema}.embedding_switch)) AS model
)
SELECT (SELECT count(*) FROM {schema}.dead_letters WHERE kind = 'event') AS dead_letters,
       (SELECT count(*) FROM {schema}.dead_letters WHERE kind = 'document') AS quarantined,
       (SELECT count(*) FROM {schema}.embedding_queue q WHERE q.model = a.model AND unembeddable IS NULL AND NOT backfill)
       + (SELECT count(*) FROM {schema}.knowledge_queue q WHERE q.model = a.model AND unembeddable IS NULL AND NOT backfill)
           AS unembedded,
       (SELECT count(*) FROM {schema}.embedding_queue q WHERE q.model = a.model AND unembeddable IS NOT NULL)
       + (SELECT count(*) FROM {schema}.knowledge_queue q WHERE q.model = a.model AND unembeddable IS NOT NULL)
           AS unembeddable,
       (SELECT count(*) FROM {schema}.distillation_queue WHERE NOT given_up) AS undistilled,
       (SELECT count(*) FROM {schema}.distillation_queue WHERE given_up) AS undistillable
FROM asked a
