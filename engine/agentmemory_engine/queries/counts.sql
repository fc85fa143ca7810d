SELECT (SELECT count(*) FROM {schema}.dead_letters WHERE kind = 'event') AS dead_letters,
       (SELECT count(*) FROM {schema}.dead_letters WHERE kind = 'document') AS quarantined,
       (SELECT count(*) FROM {schema}.embedding_queue WHERE unembeddable IS NULL)
       + (SELECT count(*) FROM {schema}.knowledge_queue WHERE unembeddable IS NULL) AS unembedded,
       (SELECT count(*) FROM {schema}.embedding_queue WHERE unembeddable IS NOT NULL)
       + (SELECT count(*) FROM {schema}.knowledge_queue WHERE unembeddable IS NOT NULL) AS unembeddable,
       (SELECT count(*) FROM {schema}.distillation_queue WHERE NOT given_up) AS undistilled,
       (SELECT count(*) FROM {schema}.distillation_queue WHERE given_up) AS undistillable
