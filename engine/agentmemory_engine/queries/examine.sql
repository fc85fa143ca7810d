SELECT split_part(current_setting('server_version'), ' ', 1) AS version,
       (SELECT default_version FROM pg_available_extensions WHERE name = 'vector') AS vector_available,
       (SELECT extversion FROM pg_extension WHERE extname = 'vector') AS vector_installed,
       current_user AS username,
       rolsuper AS superuser,
       rolsuper OR rolcreaterole AS can_create_role,
       has_database_privilege(current_database(), 'CREATE')
           OR EXISTS (SELECT FROM pg_namespace WHERE nspname = $1) AS can_create_schema,
       current_database() AS database
FROM pg_roles
WHERE rolname = current_user
