-- $1 shard, ($2, $3) entry; never lowers
UPDATE {schema}.shards SET durable_opening = $2, durable_sequence = $3
WHERE shard = $1 AND (durable_opening, durable_sequence) < ($2, $3)
