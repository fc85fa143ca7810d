-- $1 shard, $2 epoch, $3 the opening is at least this. A new epoch fences our own transactions still in flight.
UPDATE {schema}.shards SET epoch = epoch + 1, opening = greatest(opening + 1, $3)
WHERE shard = $1 AND epoch = $2
RETURNING epoch, opening
