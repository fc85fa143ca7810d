-- $1 shard, ($2, $3) an entry that Redis has accepted: whether no opening has missed it, or may be about to
SELECT s.opening = $2
       OR EXISTS (SELECT FROM {schema}.openings o WHERE o.shard = $1 AND o.opening = s.opening)
          AND NOT EXISTS (SELECT FROM {schema}.openings o
                          WHERE o.shard = $1 AND o.opening > $2 AND (o.found_opening, o.found_sequence) < ($2, $3))
FROM {schema}.shards s WHERE s.shard = $1 FOR SHARE OF s
