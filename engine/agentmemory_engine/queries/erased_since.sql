-- $1 hash of the agent, ($2, $3) an entry: whether an erasure was accepted after it
SELECT EXISTS (SELECT FROM {schema}.erasures WHERE agent = $1 AND (opening, sequence) > ($2, $3))
