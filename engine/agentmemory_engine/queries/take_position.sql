-- $1 the agent's hash: its next position, and its row locked until the end of the transaction. `leased` says whether it has a
-- document or a deletion's tombstone that is alive. The time of acceptance is taken under the lock.
INSERT INTO {schema}.agent_states AS s (agent, opening, sequence)
VALUES ($1, ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int, 1)
ON CONFLICT (agent) DO UPDATE SET
    opening = greatest(s.opening, excluded.opening),
    sequence = CASE WHEN excluded.opening > s.opening THEN 1 ELSE s.sequence + 1 END,
    found_opening = CASE WHEN excluded.opening > s.opening THEN s.opening ELSE s.found_opening END,
    found_sequence = CASE WHEN excluded.opening > s.opening THEN s.sequence ELSE s.found_sequence END
RETURNING opening, sequence, found_opening, found_sequence, clock_timestamp() AS accepted_at,
          coalesce(lease_until > clock_timestamp(), false) AS leased
