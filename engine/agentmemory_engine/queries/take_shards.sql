-- $1 instance, $2 lease (interval), $3 how many at most, $4 the shards we tend already. Takes shards whose lease has lapsed, or that an earlier run of
-- this instance owned; the new epoch fences whoever owned them.
UPDATE {schema}.shards s SET epoch = s.epoch + 1, owner = $1, lease_until = now() + $2
FROM (
    SELECT shard FROM {schema}.shards
    WHERE lease_until < now() OR (owner = $1 AND NOT shard = ANY ($4::smallint[]))
    ORDER BY (owner = $1) DESC NULLS LAST, shard LIMIT $3 FOR UPDATE SKIP LOCKED
) lapsed
WHERE s.shard = lapsed.shard
RETURNING s.shard, s.epoch, s.opening, s.durable_opening, s.durable_sequence
