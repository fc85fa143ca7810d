-- ($1) agents, each after a place of its own: ($2, $3, $4); then as in timeline.sql: $5 since, $6 until, $7 types, $8 session,
-- $9 role, $10 metadata, $11 limit for each agent. Where the events stand, and no more: most of them fill no page.
SELECT w.agent_id, e.id, e.opening, e.sequence, e.index, e.accepted_at
FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::smallint[]) AS w (agent_id, opening, sequence, index)
CROSS JOIN LATERAL (
    SELECT m.id, m.opening, m.sequence, m.index, m.accepted_at
    FROM {schema}.memory_events m
    WHERE m.agent_id = w.agent_id AND (m.opening, m.sequence, m.index) > (w.opening, w.sequence, w.index)
      AND ($5::timestamptz IS NULL OR m.at >= $5) AND ($6::timestamptz IS NULL OR m.at < $6)
      AND ($7::text[] IS NULL OR m.type = ANY ($7)) AND ($8::text IS NULL OR m.session_id = $8)
      AND ($9::text IS NULL OR m.role = $9) AND ($10::jsonb IS NULL OR m.metadata @> $10::jsonb)
    ORDER BY m.opening, m.sequence, m.index LIMIT $11
) e
