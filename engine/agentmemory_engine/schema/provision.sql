-- Run by an administrator of the database, again and again without harm: the extension, the roles, the schema.
CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA public;
DO $provision$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {owner_literal}) THEN
        CREATE ROLE {owner} NOLOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {application_literal}) THEN
        CREATE ROLE {application} NOLOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {login_literal}) THEN
        CREATE ROLE {login} LOGIN INHERIT;
    END IF;
END
$provision$;
GRANT {application} TO {login};
CREATE SCHEMA IF NOT EXISTS {schema} AUTHORIZATION {owner};
GRANT USAGE ON SCHEMA {schema} TO {application};
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {schema}
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {application};
