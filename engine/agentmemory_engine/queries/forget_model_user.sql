-- $1 instance
DELETE FROM {schema}.model_users WHERE instance = $1
