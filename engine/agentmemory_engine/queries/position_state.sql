-- $1 shard, ($2, $3) entry, $4 agent, $5 the agent's hash, $6 model. `suspect`: a store went back past this position, so that only
-- what is really there counts.
SELECT (s.durable_opening, s.durable_sequence) >= ($2, $3) AS reached,
       EXISTS (SELECT FROM {schema}.openings o
               WHERE o.shard = $1 AND o.opening > $2 AND (o.found_opening, o.found_sequence) < ($2, $3))
       OR EXISTS (SELECT FROM {schema}.gaps g
                  WHERE g.shard = $1 AND (g.after_opening, g.after_sequence) < ($2, $3)
                    AND ($2, $3) <= (g.until_opening, g.until_sequence)) AS suspect,
       EXISTS (SELECT FROM {schema}.memory_events e WHERE e.agent_id = $4 AND (e.opening, e.sequence) = ($2, $3))
       OR EXISTS (SELECT FROM {schema}.dead_letters d WHERE d.agent_id = $4 AND (d.opening, d.sequence) = ($2, $3))
       OR EXISTS (SELECT FROM {schema}.working_snapshots w WHERE w.agent_id = $4 AND (w.opening, w.sequence) = ($2, $3)
                 AND w.events = 0)
       OR EXISTS (SELECT FROM {schema}.tombstones t WHERE t.agent = $5 AND (t.opening, t.sequence) >= ($2, $3)) AS there,
       EXISTS (SELECT FROM {schema}.embedding_queue q
               WHERE q.agent_id = $4 AND q.model = $6::smallint AND (q.opening, q.sequence) = ($2, $3)
                 AND q.unembeddable IS NULL)
       OR EXISTS (SELECT FROM {schema}.embedding_models m JOIN {schema}.memory_events e ON (e.agent_id, e.id) > (m.after_agent, m.after_id)
                  WHERE m.model = $6::smallint AND m.completed_at IS NULL AND m.stage = 0
                    AND e.agent_id = $4 AND (e.opening, e.sequence) = ($2, $3) AND (e.content IS NOT NULL OR e.payload IS NOT NULL)
                    AND NOT EXISTS (SELECT FROM {schema}.event_embeddings v
                                    WHERE v.agent_id = $4 AND v.model = m.model AND v.id = e.id)
                    AND NOT EXISTS (SELECT FROM {schema}.embedding_queue q
                                    WHERE q.agent_id = $4 AND q.id = e.id AND q.model = m.model)) AS queued
FROM {schema}.shards s WHERE s.shard = $1
