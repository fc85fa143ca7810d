-- $1 the name of an index: about how many rows it has; no row where it is not there, or not whole
SELECT c.reltuples AS size FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indexrelid = to_regclass($1) AND i.indisvalid
