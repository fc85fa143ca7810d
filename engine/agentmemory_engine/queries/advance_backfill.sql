-- $1 model, ($2, $3) the last row that was looked at, $4 how many rows that were
UPDATE {schema}.embedding_models SET after_agent = $2, after_id = $3, scanned = scanned + $4 WHERE model = $1
