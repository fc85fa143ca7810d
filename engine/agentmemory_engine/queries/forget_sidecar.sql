DELETE FROM {schema}.sidecars WHERE instance = $1
