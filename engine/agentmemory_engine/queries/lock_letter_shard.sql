-- $1 agent, $2 id of a dead letter. The lock that consolidation takes, so that an erasure comes before or after, never between.
SELECT shard FROM {schema}.shards
WHERE shard = (SELECT shard FROM {schema}.dead_letters WHERE agent_id = $1 AND id = $2) FOR SHARE
