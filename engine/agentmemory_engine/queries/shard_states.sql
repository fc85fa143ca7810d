-- $1 model (NULL: the one that recall goes by). Of each shard: owner, opening, up to where it is durable, and the first entry
-- that still waits for its vectors
SELECT s.shard, s.opening, s.durable_opening, s.durable_sequence,
       CASE WHEN s.lease_until > now() THEN s.owner END AS owner,
       q.opening AS queued_opening, q.sequence AS queued_sequence
FROM {schema}.shards s
LEFT JOIN LATERAL (
    SELECT opening, sequence FROM {schema}.embedding_queue
    WHERE model = coalesce($1::smallint, (SELECT model FROM {schema}.embedding_switch))
      AND shard = s.shard AND unembeddable IS NULL AND NOT backfill ORDER BY opening, sequence LIMIT 1
) q ON true
ORDER BY s.shard
