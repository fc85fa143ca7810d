-- $1 hash of the agent, $2 key
SELECT * FROM {schema}.erasures WHERE agent = $1 AND key = $2 ORDER BY opening DESC, sequence DESC LIMIT 1
