-- $1 shard: up to where it is durable
SELECT durable_opening, durable_sequence FROM {schema}.shards WHERE shard = $1
