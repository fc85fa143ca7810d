# Starts Redis or Valkey for one AgentMemory: TLS only, append-only file, no eviction, its users in a file of ours.
# The arguments are options of the server, as in redis.conf. Paths can be set from outside, for tests.
set -eu
umask 077

data=${AGENTMEMORY_DATA:-/data}
admin=${AGENTMEMORY_ADMIN:-/etc/agentmemory/admin}
tls=${AGENTMEMORY_TLS:-/etc/agentmemory/tls}
port=${AGENTMEMORY_PORT:-6379}
last_words=${AGENTMEMORY_TERMINATION_LOG:-/dev/termination-log}

fail() {
    printf '%s\n' "$1" >&2
    printf '%s\n' "$1" >"$last_words" || true
    exit 1
}

# After a pod was deleted by force, the next one may find the last server still at work on the same volume. The lock
# goes with the server and all its children.
lock() {
    command -v flock >/dev/null || return 0
    exec 9>"$data/lock"
    flock -n 9 || {
        echo "waiting for another server to leave $data" >&2
        flock 9 &
        wait "$!" || true
    }
}

# The administrator is set anew from the Secret, as a hash; everybody else stays as the server saved them. Nobody logs in
# as default; but a server that loads its append-only file acts as default, and many a Redis and Valkey
# silently leaves out the transactions that it may not do (redis#14541, valkey#3983): so it may do everything.
write_users() {
    [ -s "$admin/password" ] || fail "password-missing: $admin/password is empty or not there"
    hash=$(printf '%s' "$(cat "$admin/password")" | sha256sum | cut -c 1-64)
    [ ${#hash} -eq 64 ] || fail "program-missing: this image has no sha256sum"
    {
        echo "user default off ~* &* +@all"
        echo "user operator on #$hash ~* &* +@all"
        [ ! -f "$data/users.acl" ] ||
            sed -n -e '/^user default /d' -e '/^user operator /d' -e '/^user /p' "$data/users.acl"
    } >"$data/users.acl.new"
    sync "$data/users.acl.new" 2>/dev/null || sync
    mv -f "$data/users.acl.new" "$data/users.acl"
}

trap 'exit 143' TERM INT # process 1 has to ask for what ends others by default; the server asks for its own
server=$(command -v redis-server || command -v valkey-server) ||
    fail "program-missing: this image has neither redis-server nor valkey-server on its PATH"
lock
write_users
cd "$data"
exec "$server" "$@" \
    --dir "$data" --daemonize no --logfile '' --pidfile '' \
    --port 0 --tls-port "$port" --tls-auth-clients no \
    --tls-cert-file "$tls/tls.crt" --tls-key-file "$tls/tls.key" --tls-ca-cert-file "$tls/ca.crt" \
    --aclfile "$data/users.acl" \
    --appendonly yes --aof-load-truncated yes --save '' --maxmemory-policy noeviction
