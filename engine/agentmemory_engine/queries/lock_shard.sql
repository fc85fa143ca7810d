-- $1 shard, $2 epoch, $3 opening. No row: the shard has another owner, or another opening.
SELECT durable_opening, durable_sequence FROM {schema}.shards
WHERE shard = $1 AND epoch = $2 AND opening = $3 FOR UPDATE
