-- $1 agent, $2 model, $3 vector. How far each of the agent's vectors is from it, from the covering index alone: the ids of
-- 16 bytes and the distances of 4, in one row and in one order, since a row for each would cost more than the comparison.
SELECT string_agg(uuid_send(id), ''::bytea) AS ids,
       string_agg(float4send(({vector} <=> $3::halfvec)::real), ''::bytea) AS distances
FROM {schema}.event_embeddings
WHERE agent_id = $1 AND model = $2
