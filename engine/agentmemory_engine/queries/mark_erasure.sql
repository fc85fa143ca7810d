-- $1 agent, $2 its hash, $3 shard, ($4, $5) entry, $6 key, $7 when it was accepted: whether it is the agent's last erasure. No
-- row: it is marked already.
INSERT INTO {schema}.erasures (agent_id, agent, shard, opening, sequence, key, asked_at) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT DO NOTHING
RETURNING NOT EXISTS (SELECT FROM {schema}.erasures l WHERE l.agent = $2 AND (l.opening, l.sequence) > ($4, $5))
