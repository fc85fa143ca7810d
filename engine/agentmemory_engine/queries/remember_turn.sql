-- $1 the agent's hash, $2 key, $3 fingerprint, ($4, $5) entry, ($6, $7) the document's version, $8 for how long the key is known,
-- $9 the ttl of the document where there is one now, else NULL
WITH leased AS (
    UPDATE {schema}.agent_states SET lease_until = CASE WHEN $9::interval IS NULL THEN NULL ELSE clock_timestamp() + $9 END
    WHERE agent = $1
)
INSERT INTO {schema}.turn_keys (agent, key, fingerprint, opening, sequence, version_opening, version_sequence, known_until)
VALUES ($1, $2, $3, $4, $5, $6, $7, now() + $8)
ON CONFLICT (agent, key) DO UPDATE SET
    fingerprint = excluded.fingerprint, opening = excluded.opening, sequence = excluded.sequence,
    version_opening = excluded.version_opening, version_sequence = excluded.version_sequence, known_until = excluded.known_until
