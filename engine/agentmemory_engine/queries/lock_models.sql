-- $1 names the models of this memory: waits for whoever is storing what wants vectors, so that all of it is committed, and
-- whoever comes after sees what this transaction says of the models.
SELECT pg_advisory_xact_lock(hashtextextended($1, 0))
