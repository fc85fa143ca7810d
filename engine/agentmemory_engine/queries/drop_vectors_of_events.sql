-- $1 models, ($2, $3) the last event that was looked at, $4 how many events to look at: their vectors by these models go, and
-- what is noted of those that had none. Answers the last one, NULL where there was none left.
WITH page AS (
    SELECT agent_id, id FROM {schema}.memory_events WHERE (agent_id, id) > ($2, $3) ORDER BY agent_id, id LIMIT $4
), vectors AS (
    DELETE FROM {schema}.event_embeddings v USING page p
    WHERE v.agent_id = p.agent_id AND v.id = p.id AND v.model = ANY ($1::smallint[])
), notes AS (
    DELETE FROM {schema}.embedding_queue q USING page p
    WHERE q.agent_id = p.agent_id AND q.id = p.id AND q.model = ANY ($1::smallint[])
)
SELECT agent_id, id FROM page ORDER BY agent_id DESC, id DESC LIMIT 1
