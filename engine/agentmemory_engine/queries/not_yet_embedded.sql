-- $1 agent: how many of its events still wait for their vectors
SELECT count(*) AS events FROM {schema}.embedding_queue WHERE agent_id = $1 AND unembeddable IS NULL
