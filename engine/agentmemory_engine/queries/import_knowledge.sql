-- $1 agent, $2 facts as export_knowledge.sql gives them, $3 shard. What is there already, or contradicts what is
-- believed now, is left.
WITH stored AS (
    INSERT INTO {schema}.agent_knowledge
    SELECT fact.* FROM unnest($2::text[]) AS given (line),
        jsonb_populate_record(NULL::{schema}.agent_knowledge, given.line::jsonb || jsonb_build_object('agent_id', $1::text)) AS fact
    ON CONFLICT DO NOTHING
    RETURNING agent_id, id
), queued AS (
    INSERT INTO {schema}.knowledge_queue (agent_id, id, model, shard)
    SELECT s.agent_id, s.id, m.model, $3 FROM stored s JOIN {schema}.embedding_models m ON m.kept
)
SELECT count(*) FROM stored
