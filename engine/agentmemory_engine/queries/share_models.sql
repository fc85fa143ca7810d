-- {lock}: the models of this memory. Whoever stores what wants vectors shares this lock until the end of the transaction.
SELECT pg_advisory_xact_lock_shared(hashtextextended({lock}, 0))
