-- $1 instance, $2 lease (interval), $3 shards and $4 their epochs as we know them: no other lease is kept alive, or nobody
-- would tend the shard. A row that a transaction of a lost connection still locks is passed over. Answers what we still own.
UPDATE {schema}.shards SET lease_until = now() + $2
WHERE shard IN (
    SELECT s.shard FROM {schema}.shards s JOIN unnest($3::smallint[], $4::bigint[]) AS k (shard, epoch) USING (shard, epoch)
    WHERE s.owner = $1 AND s.lease_until > now() FOR UPDATE OF s SKIP LOCKED
)
RETURNING shard, epoch, opening, durable_opening, durable_sequence
