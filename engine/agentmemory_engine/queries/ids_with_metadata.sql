-- $1 agent, $2 a JSON object that the metadata contains
SELECT string_agg(uuid_send(id), ''::bytea) AS ids FROM {schema}.memory_events
WHERE agent_id = $1 AND metadata @> $2::jsonb
