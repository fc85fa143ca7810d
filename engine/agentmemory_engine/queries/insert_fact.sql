-- $1 agent, $2 id, $3 origin, $4 key, $5 topic, $6 content, $7 confidence, $8 sources, $9 metadata, $10 fingerprint, $11 shard,
-- $12 when the version before it ended (NULL: there is none). Of one key, beliefs follow each other without an overlap,
-- whatever the clock does. It waits for a vector of every model that is kept up.
WITH inserted AS (
    INSERT INTO {schema}.agent_knowledge
        (agent_id, id, origin, key, topic, content, confidence, sources, metadata, fingerprint, believed_from)
    SELECT $1, $2, $3, $4, $5, $6, $7, $8::uuid[], $9::jsonb, $10,
           coalesce($12, greatest(clock_timestamp(), (SELECT max(believed_until) FROM {schema}.agent_knowledge
                                                      WHERE agent_id = $1 AND key = $4)))
    RETURNING *
), queued AS (
    INSERT INTO {schema}.knowledge_queue (agent_id, id, model, shard)
    SELECT i.agent_id, i.id, m.model, $11 FROM inserted i JOIN {schema}.embedding_models m ON m.kept
)
SELECT * FROM inserted
