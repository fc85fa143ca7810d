-- $1 instance, $2 shards
UPDATE {schema}.shards SET lease_until = '-infinity', owner = NULL WHERE owner = $1 AND shard = ANY ($2::smallint[])
