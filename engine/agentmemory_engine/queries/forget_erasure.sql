-- $1 hash of the agent, ($2, $3) entry, which was lost: the mark of it, if it was not carried out after all
DELETE FROM {schema}.erasures WHERE (agent, opening, sequence) = ($1, $2, $3) AND erased_at IS NULL
