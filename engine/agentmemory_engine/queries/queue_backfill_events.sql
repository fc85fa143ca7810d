-- $1 model, $2 agents, $3 ids, $4 shards, $5 openings, $6 sequences: they wait for their vectors, after all that is new
INSERT INTO {schema}.embedding_queue (agent_id, id, model, shard, opening, sequence, backfill)
SELECT agent_id, id, $1, shard, opening, sequence, true
FROM unnest($2::text[], $3::uuid[], $4::smallint[], $5::bigint[], $6::bigint[]) AS t (agent_id, id, shard, opening, sequence)
ON CONFLICT DO NOTHING
