-- $1 hash of the agent: the last erasure of it that is accepted and not yet carried out
SELECT opening, sequence FROM {schema}.erasures
WHERE agent = $1 AND erased_at IS NULL ORDER BY opening DESC, sequence DESC LIMIT 1
