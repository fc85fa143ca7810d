-- Everything that belongs to the schema, the schema, and its roles; what is not there is no mistake.
DO $unprovision$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = {owner_literal}) THEN
        IF NOT pg_has_role(current_user, {owner_literal}, {act_as}) THEN
            GRANT {owner} TO CURRENT_USER;
        END IF;
        SET LOCAL ROLE {owner};
        DROP SCHEMA IF EXISTS {schema} CASCADE;
        RESET ROLE;
        DROP ROLE {owner};
    END IF;
END
$unprovision$;
DROP ROLE IF EXISTS {application};
