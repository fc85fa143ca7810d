-- ($1, $2, $3) after this one (NULL: from the start), $4 limit
SELECT * FROM {schema}.dead_letters
WHERE $1::timestamptz IS NULL OR (dead_at, agent_id, id) > ($1, $2::text, $3::uuid)
ORDER BY dead_at, agent_id, id LIMIT $4
