-- Run by an administrator of the database, again and again without harm: the extension, the roles, the schema.
-- The administrator need not be a superuser where the extension is there: CREATEROLE, and CREATE on the database, do.
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
    IF NOT pg_has_role({login_literal}, {application_literal}, 'MEMBER') THEN
        GRANT {application} TO {login};
    END IF;
    -- From version 16 on, who makes a role may give it to others, but acts as it only when it was given, too.
    IF NOT pg_has_role(current_user, {owner_literal}, {act_as}) THEN
        GRANT {owner} TO CURRENT_USER;
    END IF;
    -- CREATE SCHEMA IF NOT EXISTS wants the right to make one even where it is there.
    IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = {schema_literal}) THEN
        CREATE SCHEMA {schema} AUTHORIZATION {owner};
    END IF;
END
$provision$;
SET LOCAL ROLE {owner};
GRANT USAGE ON SCHEMA {schema} TO {application};
ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {application};
RESET ROLE;
