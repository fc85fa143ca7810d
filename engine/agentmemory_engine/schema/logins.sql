-- The logins of a memory. Who made the application role is its member, too, with the right to give it: no login.
SELECT login.rolname AS username
FROM pg_auth_members AS membership
JOIN pg_roles AS login ON login.oid = membership.member
JOIN pg_roles AS application ON application.oid = membership.roleid
WHERE application.rolname = $1
GROUP BY login.rolname
HAVING NOT bool_or(membership.admin_option OR login.rolsuper OR login.rolcreaterole)
