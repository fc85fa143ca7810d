-- $1 instance, $2 lease (interval), $3 the shards we tend: no other lease is kept alive, or nobody would tend the shard.
-- Answers what we still own of them.
UPDATE {schema}.shards SET lease_until = now() + $2
WHERE owner = $1 AND shard = ANY ($3::smallint[]) AND lease_until > now()
RETURNING shard, epoch, opening, durable_opening, durable_sequence
