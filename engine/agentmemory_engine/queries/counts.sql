SELECT (SELECT count(*) FROM {schema}.dead_letters) AS dead_letters,
       (SELECT count(*) FROM {schema}.embedding_queue WHERE unembeddable IS NULL)
       + (SELECT count(*) FROM {schema}.knowledge_queue WHERE unembeddable IS NULL) AS unembedded,
       (SELECT count(*) FROM {schema}.embedding_queue WHERE unembeddable IS NOT NULL)
       + (SELECT count(*) FROM {schema}.knowledge_queue WHERE unembeddable IS NOT NULL) AS unembeddable
