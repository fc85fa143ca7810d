-- All models that have, or had, vectors here. `pending` is what their back-fill has queued and not embedded yet.
SELECT m.model, m.name, m.dimensions, m.kept, m.completed_at, m.scanned, m.total, m.unwanted_at, s.switched_at,
       (SELECT count(*) FROM {schema}.embedding_queue q WHERE q.model = m.model AND unembeddable IS NULL AND backfill)
       + (SELECT count(*) FROM {schema}.knowledge_queue q WHERE q.model = m.model AND unembeddable IS NULL AND backfill)
           AS pending
FROM {schema}.embedding_models m LEFT JOIN {schema}.embedding_switch s ON s.model = m.model
WHERE m.kept OR m.removed_at IS NULL
ORDER BY m.model
