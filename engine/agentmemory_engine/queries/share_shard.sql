-- $1 shard. The lock that consolidation takes, so that an erasure comes before or after, never between.
SELECT shard FROM {schema}.shards WHERE shard = $1 FOR SHARE
