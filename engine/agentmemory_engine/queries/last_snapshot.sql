SELECT shard, opening, sequence, kind, writer, fingerprint, events, body, taken_at FROM {schema}.working_snapshots
WHERE agent_id = $1 ORDER BY opening DESC, sequence DESC LIMIT 1
