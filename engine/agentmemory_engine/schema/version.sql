-- The last migration that was applied, and when
SELECT version, applied_at FROM {schema}.schema_migrations ORDER BY version DESC LIMIT 1
