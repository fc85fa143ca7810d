-- $1 agent, ($2, $3) before this place (NULL: from the newest), $4 whether it has ended, $5 metadata it contains, $6 limit
SELECT * FROM {schema}.agent_sessions
WHERE agent_id = $1
  AND ($2::timestamptz IS NULL OR (started_at, session_id COLLATE "C") < ($2, $3::text))
  AND ($4::boolean IS NULL OR (ended_at IS NOT NULL) = $4) AND ($5::jsonb IS NULL OR metadata @> $5::jsonb)
ORDER BY started_at DESC, session_id COLLATE "C" DESC LIMIT $6
