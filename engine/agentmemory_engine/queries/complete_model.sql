-- $1 model: its back-fill is through, and nothing that it queued waits any more.
UPDATE {schema}.embedding_models m SET completed_at = now()
WHERE m.model = $1 AND m.kept AND m.completed_at IS NULL AND m.stage = 2
  AND NOT EXISTS (SELECT FROM {schema}.embedding_queue WHERE model = $1 AND unembeddable IS NULL AND backfill)
  AND NOT EXISTS (SELECT FROM {schema}.knowledge_queue WHERE model = $1 AND unembeddable IS NULL AND backfill)
RETURNING m.model
