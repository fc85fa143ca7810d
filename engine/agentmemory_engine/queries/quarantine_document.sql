-- $1 agent, $2 id, $3 shard, ($4, $5) its version, $6 reason, $7 its bytes, $8 hash of the agent. What an erasure took is not
-- kept, and what is kept already is not kept twice.
INSERT INTO {schema}.dead_letters
    (kind, agent_id, id, shard, opening, sequence, index, accepted_at, fingerprint, reason, raw)
SELECT 'document', $1, $2, $3, $4, $5, 0, clock_timestamp(), 0, $6, $7
WHERE NOT EXISTS (SELECT FROM {schema}.tombstones WHERE agent = $8 AND ($4, $5) <= (opening, sequence))
ON CONFLICT DO NOTHING
