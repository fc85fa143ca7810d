-- One statement for a batch, in stream order: events that are new go in, with their place in the embedding queue.
-- What is erased, already there or a dead letter is left out. Each waits for a vector of every model that is kept up.
WITH incoming AS (
    SELECT * FROM unnest(
        $1::text[], $2::bytea[], $3::uuid[], $4::bigint[], $5::bigint[], $6::smallint[], $7::timestamptz[],
        $8::timestamptz[], $9::bigint[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[],
        $16::boolean[]
    ) WITH ORDINALITY AS t (agent_id, hash, id, opening, sequence, index, at, accepted_at, fingerprint, type, role,
                            session_id, content, payload, metadata, embeddable, place)
), inserted AS (
    INSERT INTO {schema}.memory_events (agent_id, id, opening, sequence, index, at, accepted_at, fingerprint, type, role,
                                        session_id, content, payload, metadata)
    SELECT agent_id, id, opening, sequence, index, at, accepted_at, fingerprint, type, role,
           session_id, content, payload::json, metadata::jsonb
    FROM incoming i
    WHERE NOT EXISTS (SELECT FROM {schema}.tombstones t
                      WHERE t.agent = i.hash AND (i.opening, i.sequence) <= (t.opening, t.sequence))
      AND NOT EXISTS (SELECT FROM {schema}.dead_letters d WHERE d.agent_id = i.agent_id AND d.id = i.id)
    ORDER BY place
    ON CONFLICT (agent_id, id) DO NOTHING
    RETURNING agent_id, id, opening, sequence
), queued AS (
    INSERT INTO {schema}.embedding_queue (agent_id, id, model, shard, opening, sequence)
    SELECT n.agent_id, n.id, m.model, $17::smallint, n.opening, n.sequence
    FROM inserted n JOIN incoming i ON i.agent_id = n.agent_id AND i.id = n.id
    JOIN {schema}.embedding_models m ON m.kept
    WHERE i.embeddable
    ON CONFLICT DO NOTHING
)
SELECT count(*) FROM inserted
