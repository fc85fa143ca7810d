# Starts PgBouncer, tells it of new settings, logins and certificates, none of which it notices by itself, and lets it
# end in good order. Paths can be set from outside, for tests.
set -eu
umask 077

settings=${AGENTMEMORY_SETTINGS:-/etc/agentmemory/pooler/pgbouncer.ini}
tls=${AGENTMEMORY_TLS:-/etc/agentmemory/tls}
postgres=${AGENTMEMORY_POSTGRES_TLS:-/etc/agentmemory/postgres}
logins=${AGENTMEMORY_LOGINS:-/etc/agentmemory/logins}
run=${AGENTMEMORY_RUN:-/tmp}
interval=${AGENTMEMORY_INTERVAL:-10}
farewell=${AGENTMEMORY_FAREWELL:-5}
last_words=${AGENTMEMORY_TERMINATION_LOG:-/dev/termination-log}

fail() {
    printf '%s\n' "$1" >&2
    printf '%s\n' "$1" >"$last_words" || true
    exit 1
}

# How Postgres is spoken to depends on whether there is an authority to trust, which the manifest cannot know.
write_settings() {
    {
        cat "$settings"
        if [ -s "$postgres/ca.crt" ]; then
            echo "server_tls_sslmode = $AGENTMEMORY_SSL_MODE_WITH_CA"
            echo "server_tls_ca_file = $postgres/ca.crt"
        else
            echo "server_tls_sslmode = $AGENTMEMORY_SSL_MODE"
            case $AGENTMEMORY_SSL_MODE in
                verify-*) echo "server_tls_ca_file = /etc/ssl/certs/ca-certificates.crt" ;;
            esac
        fi
    } >"$run/pgbouncer.ini.new"
    mv -f "$run/pgbouncer.ini.new" "$run/pgbouncer.ini"
}

state() {
    cat "$run/pgbouncer.ini" "$logins/userlist.txt" "$tls/tls.crt" "$tls/tls.key" "$postgres/ca.crt" 2>/dev/null | cksum
}

watch() {
    while sleep "$interval"; do
        write_settings
        [ "$(state)" != "$seen" ] || continue
        seen=$(state)
        kill -HUP "$server" || return 0
    done
}

# New clients are sent elsewhere first, which takes the cluster a moment; then work that is under way comes to its end.
leave() {
    trap '' TERM INT
    sleep "$farewell"
    kill -INT "$server"
}

command -v pgbouncer >/dev/null || fail "program-missing: this image has no pgbouncer on its PATH"
write_settings
seen=$(state)
pgbouncer "$run/pgbouncer.ini" &
server=$!
watch &
watcher=$!
trap leave TERM INT
while kill -0 "$server" 2>/dev/null; do
    status=0
    wait "$server" || status=$?
done
kill "$watcher" 2>/dev/null || true
exit "$status"
