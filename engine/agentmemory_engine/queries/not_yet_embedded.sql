-- $1 agent, $2 model: how many of its events still wait for their vectors, and how many of these (`old`) are from before the
-- model: those that its back-fill has queued, and those that it did not come to yet.
WITH queued AS (
    SELECT count(*) AS events, count(*) FILTER (WHERE backfill) AS old
    FROM {schema}.embedding_queue WHERE agent_id = $1 AND model = $2::smallint AND unembeddable IS NULL
), unseen AS (
    SELECT count(*) AS events
    FROM {schema}.embedding_models m JOIN {schema}.memory_events e ON (e.agent_id, e.id) > (m.after_agent, m.after_id)
    WHERE m.model = $2::smallint AND m.completed_at IS NULL AND m.stage = 0
      AND e.agent_id = $1 AND (e.content IS NOT NULL OR e.payload IS NOT NULL)
      AND NOT EXISTS (SELECT FROM {schema}.event_embeddings v WHERE v.agent_id = $1 AND v.model = m.model AND v.id = e.id)
      AND NOT EXISTS (SELECT FROM {schema}.embedding_queue q WHERE q.agent_id = $1 AND q.id = e.id AND q.model = m.model)
)
SELECT queued.events + unseen.events AS events, queued.old + unseen.events AS old FROM queued, unseen
