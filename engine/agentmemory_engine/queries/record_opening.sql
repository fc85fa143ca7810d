-- $1 shard, $2 opening, $3 run, $4 and $5 the last entry found
INSERT INTO {schema}.openings (shard, opening, run_id, found_opening, found_sequence) VALUES ($1, $2, $3, $4, $5)
