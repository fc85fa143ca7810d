-- End the sessions of a login, as far as this administrator may, and the login itself.
DO $drop$
BEGIN
    IF NOT pg_has_role(current_user, {login_literal}, 'USAGE') THEN
        GRANT {login} TO CURRENT_USER;
    END IF;
    PERFORM pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE usename = {login_literal};
EXCEPTION
    WHEN insufficient_privilege OR undefined_object THEN
        NULL;
END
$drop$;
DROP ROLE IF EXISTS {login};
