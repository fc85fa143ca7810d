-- $1 agent, $2 its hash: its newest document or tombstone, while that is leased
SELECT w.opening, w.sequence, w.kind, w.writer, w.fingerprint, w.events, w.body
FROM {schema}.working_snapshots w
WHERE w.agent_id = $1
  AND EXISTS (SELECT FROM {schema}.agent_states s WHERE s.agent = $2 AND s.lease_until > clock_timestamp())
ORDER BY w.opening DESC, w.sequence DESC LIMIT 1
