-- ($1, $2) entry, $3 agent, $4 the agent's hash, $5 model. `suspect`: the server went back past this position, so that
-- only what is really there counts.
SELECT (s.opening, s.sequence) >= ($1, $2) AS given,
       EXISTS (SELECT FROM {schema}.agent_openings o
               WHERE o.agent = $4 AND o.opening > $1 AND (o.found_opening, o.found_sequence) < ($1, $2)) AS suspect,
       EXISTS (SELECT FROM {schema}.memory_events e WHERE e.agent_id = $3 AND (e.opening, e.sequence) = ($1, $2))
       OR EXISTS (SELECT FROM {schema}.working_snapshots w WHERE w.agent_id = $3 AND (w.opening, w.sequence) = ($1, $2))
       OR EXISTS (SELECT FROM {schema}.tombstones t WHERE t.agent = $4 AND (t.opening, t.sequence) >= ($1, $2)) AS there,
       EXISTS (SELECT FROM {schema}.embedding_queue q
               WHERE q.agent_id = $3 AND q.model = $5::smallint AND (q.opening, q.sequence) = ($1, $2)
                 AND q.unembeddable IS NULL)
       OR EXISTS (SELECT FROM {schema}.embedding_models m JOIN {schema}.memory_events e ON (e.agent_id, e.id) > (m.after_agent, m.after_id)
                  WHERE m.model = $5::smallint AND m.completed_at IS NULL AND m.stage = 0
                    AND e.agent_id = $3 AND (e.opening, e.sequence) = ($1, $2) AND (e.content IS NOT NULL OR e.payload IS NOT NULL)
                    AND NOT EXISTS (SELECT FROM {schema}.event_embeddings v
                                    WHERE v.agent_id = $3 AND v.model = m.model AND v.id = e.id)
                    AND NOT EXISTS (SELECT FROM {schema}.embedding_queue q
                                    WHERE q.agent_id = $3 AND q.id = e.id AND q.model = m.model)) AS queued
FROM {schema}.agent_states s WHERE s.agent = $4
