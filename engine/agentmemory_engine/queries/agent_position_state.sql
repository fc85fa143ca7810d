-- $1 shard, ($2, $3) entry, $4 agent, $5 the agent's hash. `suspect`: the server went back past this position, so that only what
-- is really there counts.
SELECT (s.opening, s.sequence) >= ($2, $3) AS given,
       EXISTS (SELECT FROM {schema}.agent_openings o
               WHERE o.agent = $5 AND o.opening > $2 AND (o.found_opening, o.found_sequence) < ($2, $3)) AS suspect,
       EXISTS (SELECT FROM {schema}.memory_events e WHERE e.agent_id = $4 AND (e.opening, e.sequence) = ($2, $3))
       OR EXISTS (SELECT FROM {schema}.working_snapshots w WHERE w.agent_id = $4 AND (w.opening, w.sequence) = ($2, $3))
       OR EXISTS (SELECT FROM {schema}.tombstones t WHERE t.agent = $5 AND (t.opening, t.sequence) >= ($2, $3)) AS there,
       EXISTS (SELECT FROM {schema}.embedding_queue q
               WHERE q.shard = $1 AND q.agent_id = $4 AND (q.opening, q.sequence) = ($2, $3) AND q.unembeddable IS NULL)
           AS queued
FROM {schema}.agent_states s WHERE s.agent = $5
