-- $1 shard, ($2, $3) the last entry that an opening found: accepted erasures whose entry is gone with what Redis lost
SELECT * FROM {schema}.erasures
WHERE shard = $1 AND erased_at IS NULL AND (opening, sequence) > ($2, $3) ORDER BY opening, sequence
