-- $1 names the agent's knowledge. Whoever writes it does so alone until the end of the transaction.
SELECT pg_advisory_xact_lock(hashtextextended($1, 0))
