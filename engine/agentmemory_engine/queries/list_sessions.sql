-- $1 agent, ($2, $3) before this place (NULL: from the newest), $4 whether it has ended, $5 metadata it contains, $6 limit,
-- $7 hash of the agent, as in get_session.sql
SELECT * FROM {schema}.agent_sessions
WHERE agent_id = $1
  AND ($2::timestamptz IS NULL OR (started_at, session_id COLLATE "C") < ($2, $3::text))
  AND ($4::boolean IS NULL OR (ended_at IS NOT NULL) = $4) AND ($5::jsonb IS NULL OR metadata @> $5::jsonb)
  AND NOT (derived AND EXISTS (SELECT FROM {schema}.erasures e WHERE e.agent = $7 AND e.erased_at IS NULL))
ORDER BY started_at DESC, session_id COLLATE "C" DESC LIMIT $6
