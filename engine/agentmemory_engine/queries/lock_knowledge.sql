-- $1 names the agent's knowledge. Whoever writes it does so alone until the end of the transaction, and so does whoever marks
-- an erasure: a write comes before or after the mark, never between.
SELECT pg_advisory_xact_lock(hashtextextended($1, 0))
