SELECT shard, opening, sequence, kind, body, taken_at FROM {schema}.working_snapshots
WHERE agent_id = $1 AND opening = $2 AND sequence = $3
