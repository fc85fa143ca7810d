-- Whether rows can be read at all
SELECT shard FROM {schema}.shards LIMIT 1
