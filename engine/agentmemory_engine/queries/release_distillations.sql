-- $1 instance
UPDATE {schema}.distillation_queue SET claimed_until = '-infinity', claimed_by = NULL WHERE claimed_by = $1
