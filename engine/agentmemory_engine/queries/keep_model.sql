-- $1 model: from now on what is new is queued for it, and what is there already is for its back-fill; where nothing is there,
-- it is complete. What an earlier life of it left in the queue is old.
WITH kept AS (
    UPDATE {schema}.embedding_models SET kept = true, unwanted_at = NULL, removed_at = NULL, completed_at = CASE
        WHEN NOT EXISTS (SELECT FROM {schema}.memory_events) AND NOT EXISTS (SELECT FROM {schema}.agent_knowledge)
        THEN now() END
    WHERE model = $1 AND NOT kept RETURNING model
), events AS (
    UPDATE {schema}.embedding_queue q SET backfill = true FROM kept k WHERE q.model = k.model AND q.unembeddable IS NULL
)
UPDATE {schema}.knowledge_queue q SET backfill = true FROM kept k WHERE q.model = k.model AND q.unembeddable IS NULL
