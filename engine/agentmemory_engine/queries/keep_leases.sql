-- $1 instance, $2 lease (interval), $3 shards. While a round goes on: our leases, whatever their epoch is by now. A row that
-- is locked is being consolidated.
UPDATE {schema}.shards SET lease_until = now() + $2
WHERE shard IN (
    SELECT shard FROM {schema}.shards
    WHERE owner = $1 AND shard = ANY ($3::smallint[]) AND lease_until > now() FOR UPDATE SKIP LOCKED
)
