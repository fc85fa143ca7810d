-- $1 hash of the agent, $2 shard, ($3, $4) entry; never lowers
INSERT INTO {schema}.tombstones AS t (agent, shard, opening, sequence) VALUES ($1, $2, $3, $4)
ON CONFLICT (agent) DO UPDATE SET opening = $3, sequence = $4, erased_at = now()
WHERE (t.opening, t.sequence) < ($3, $4)
