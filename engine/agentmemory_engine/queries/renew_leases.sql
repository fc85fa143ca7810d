-- $1 instance, $2 lease (interval). Keeps what is ours; answers what we still own.
UPDATE {schema}.shards SET lease_until = now() + $2
WHERE owner = $1 AND lease_until > now()
RETURNING shard, epoch, opening, durable_opening, durable_sequence
