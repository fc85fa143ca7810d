# Starts PgBouncer for the login that `migrate` made. After that login was changed, start it again. Paths can be set from
# outside.
set -eu
umask 077

logins=${AGENTMEMORY_CREDENTIALS_DIR:-/var/lib/agentmemory/credentials}
settings=${AGENTMEMORY_SETTINGS:-/etc/agentmemory/pgbouncer.ini}
run=${AGENTMEMORY_RUN:-/tmp}

# One name, or one password, as it stands between quotes in a list of users.
quoted() { sed -e 's/"/""/g' -e '1s/^/"/' -e '$s/$/"/' "$1"; }

[ -s "$logins/postgres-password" ] || {
    echo "there is no login in $logins yet: the service migrate makes it" >&2
    exit 1
}
printf '%s %s\n' "$(quoted "$logins/postgres-username")" "$(quoted "$logins/postgres-password")" >"$run/userlist.txt"
exec pgbouncer "$settings"
