-- $1 agent, $2 its hash, $3 shard, ($4, $5) entry, $6 key, $7 when it was accepted. No row: it is marked already.
INSERT INTO {schema}.erasures (agent_id, agent, shard, opening, sequence, key, asked_at) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT DO NOTHING
RETURNING agent_id
