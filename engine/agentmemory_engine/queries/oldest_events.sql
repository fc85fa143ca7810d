-- $1 the last agent of the page before, $2 agents a page, $3 how long events are kept (interval): whether each has older
-- ones. One look into the index for each agent, however many events it has.
WITH RECURSIVE first AS (
    (SELECT agent_id, accepted_at, 1 AS place FROM {schema}.memory_events
     WHERE agent_id > $1 ORDER BY agent_id, opening, sequence, index LIMIT 1)
    UNION ALL
    SELECT e.agent_id, e.accepted_at, f.place + 1
    FROM first f, LATERAL (SELECT agent_id, accepted_at FROM {schema}.memory_events
                           WHERE agent_id > f.agent_id ORDER BY agent_id, opening, sequence, index LIMIT 1) e
    WHERE f.place < $2
)
SELECT agent_id, accepted_at < now() - $3::interval AS has_old FROM first ORDER BY place
