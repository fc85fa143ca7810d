-- $1 the name of an index: whether it is there, and whole
SELECT indisvalid AS ready FROM pg_index WHERE indexrelid = to_regclass($1)
