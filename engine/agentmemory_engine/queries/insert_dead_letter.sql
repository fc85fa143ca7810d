-- An event that Postgres holds under this id already is no dead letter as well.
INSERT INTO {schema}.dead_letters
    (agent_id, id, shard, opening, sequence, index, session_id, accepted_at, fingerprint, reason, sqlstate, raw)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12
WHERE NOT EXISTS (SELECT FROM {schema}.memory_events WHERE agent_id = $1 AND id = $2)
  AND NOT EXISTS (SELECT FROM {schema}.tombstones WHERE agent = $13 AND ($4, $5) <= (opening, sequence))
ON CONFLICT DO NOTHING
