-- $1 agent; $2 opening, $3 sequence, $4 index: the rows after this one; $5 how many. Always at least one row, for the
-- revision, which is of the same snapshot. A gap means that Postgres went back, and may have lost rows of any agent.
SELECT coalesce((SELECT revision FROM {schema}.agent_revisions WHERE agent_id = $1), 0)
           + (SELECT count(*) FROM {schema}.gaps) AS revision,
       e.id, e.opening, e.sequence, e.index, e.at, e.type, e.role, e.session_id, e.content,
       CASE WHEN e.content IS NULL OR e.content !~ '\S' THEN e.payload END AS payload
FROM (SELECT 1) AS one
LEFT JOIN LATERAL (
    SELECT * FROM {schema}.memory_events
    WHERE agent_id = $1 AND (opening, sequence, index) > ($2, $3, $4)
    ORDER BY opening, sequence, index LIMIT $5
) AS e ON true
ORDER BY e.opening, e.sequence, e.index
