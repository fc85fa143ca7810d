-- Snapshots that are newer than what is kept, and past a tombstone; then only the newest few of each agent stay ($9).
WITH incoming AS (
    SELECT * FROM unnest($1::text[], $2::bytea[], $3::bigint[], $4::bigint[], $5::text[], $6::bytea[], $7::bytea[], $8::bytea[],
                         $11::smallint[]) AS t (agent_id, hash, opening, sequence, kind, writer, fingerprint, body, events)
), inserted AS (
    INSERT INTO {schema}.working_snapshots (agent_id, opening, sequence, shard, kind, writer, fingerprint, body, events)
    SELECT agent_id, opening, sequence, $10::smallint, kind::"char", writer, fingerprint, body, events FROM incoming i
    WHERE NOT EXISTS (SELECT FROM {schema}.working_snapshots w
                      WHERE w.agent_id = i.agent_id AND (w.opening, w.sequence) >= (i.opening, i.sequence))
      AND NOT EXISTS (SELECT FROM {schema}.tombstones t
                      WHERE t.agent = i.hash AND (i.opening, i.sequence) <= (t.opening, t.sequence))
    RETURNING agent_id
)
DELETE FROM {schema}.working_snapshots w USING inserted i
WHERE w.agent_id = i.agent_id AND (w.opening, w.sequence) IN (
    SELECT o.opening, o.sequence FROM {schema}.working_snapshots o WHERE o.agent_id = i.agent_id
    ORDER BY o.opening DESC, o.sequence DESC OFFSET $9 - 1
)
