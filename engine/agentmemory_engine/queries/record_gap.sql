-- $1 shard, ($2, $3) durable as Postgres has it, ($4, $5) the last trimmed entry
INSERT INTO {schema}.gaps (shard, after_opening, after_sequence, until_opening, until_sequence) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT DO NOTHING
