-- As release_claims.sql, for facts: $1 instance, $2 whether the texts may be to blame
UPDATE {schema}.knowledge_queue
SET claimed_until = '-infinity', claimed_by = NULL, attempts = CASE WHEN $2 THEN attempts + 1 ELSE 0 END
WHERE claimed_by = $1 AND unembeddable IS NULL
