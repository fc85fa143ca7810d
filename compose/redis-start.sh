# Starts Redis, or Valkey, with an append-only file and no eviction. Nobody logs in but the administrator, whose password is
# a secret, and who was given a login since. The arguments are options of the server. Paths can be set from outside.
set -eu
umask 077

data=${AGENTMEMORY_DATA:-/data}
password=${AGENTMEMORY_PASSWORD_FILE:-/run/secrets/redis-password}
port=${AGENTMEMORY_PORT:-6379}

fail() {
    printf '%s\n' "$1" >&2
    exit 1
}

[ -s "$password" ] || fail "$password is empty or not there: make the passwords with \`make secrets\`"
hash=$(printf '%s' "$(cat "$password")" | sha256sum | cut -c 1-64)
[ ${#hash} -eq 64 ] || fail "this image has no sha256sum"
server=$(command -v redis-server || command -v valkey-server) || fail "this image has no redis-server and no valkey-server"
# The server loads its file as the user `default`, so that one may do everything, and yet not log in.
{
    echo "user default off ~* &* +@all"
    echo "user admin on #$hash ~* &* +@all"
    [ ! -f "$data/users.acl" ] || sed -n -e '/^user default /d' -e '/^user admin /d' -e '/^user /p' "$data/users.acl"
} >"$data/users.acl.new"
mv -f "$data/users.acl.new" "$data/users.acl"
cd "$data"
exec "$server" "$@" --dir "$data" --port "$port" --daemonize no --logfile '' --aclfile "$data/users.acl" \
    --appendonly yes --save '' --maxmemory-policy noeviction
