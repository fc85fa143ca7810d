-- $1 agent, $2 what the keys of the session's facts begin with, $3 the keys that were drawn this time. A fact whose events are
-- not there any more, since they were kept for long enough, could not be drawn again: it stays.
UPDATE {schema}.agent_knowledge f
SET believed_until = greatest(clock_timestamp(), f.believed_from + interval '1 microsecond')
WHERE f.agent_id = $1 AND f.believed_until IS NULL AND starts_with(f.key, $2) AND NOT (f.key = ANY ($3::text[]))
  AND NOT EXISTS (
      SELECT FROM unnest(f.sources) AS s (id)
      WHERE NOT EXISTS (SELECT FROM {schema}.memory_events e WHERE e.agent_id = $1 AND e.id = s.id)
  )
