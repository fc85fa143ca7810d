-- $1 the agent's hash, $2 key: the turn that was accepted under it within the window
SELECT fingerprint, opening, sequence, version_opening, version_sequence FROM {schema}.turn_keys
WHERE agent = $1 AND key = $2 AND known_until > now()
