-- $1 agents, $2 ids, $3 fingerprints: which of them are already there with another body
SELECT t.id FROM unnest($1::text[], $2::uuid[], $3::bigint[]) AS t (agent_id, id, fingerprint)
WHERE EXISTS (SELECT FROM {schema}.memory_events e
              WHERE e.agent_id = t.agent_id AND e.id = t.id AND e.fingerprint <> t.fingerprint)
   OR EXISTS (SELECT FROM {schema}.dead_letters d
              WHERE d.agent_id = t.agent_id AND d.id = t.id AND d.fingerprint <> t.fingerprint)
