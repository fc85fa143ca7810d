# Starts PostgreSQL for one AgentMemory, making its data first where there are none: TLS and scram for everyone.
# The arguments are options of the server (-c name=value). Paths can be set from outside, for tests.
set -eu
umask 077

data=${AGENTMEMORY_DATA:-/data}
admin=${AGENTMEMORY_ADMIN:-/etc/agentmemory/admin}
tls=${AGENTMEMORY_TLS:-/etc/agentmemory/tls}
run=${AGENTMEMORY_RUN:-/run/postgresql}
port=${AGENTMEMORY_PORT:-5432}
versions=${AGENTMEMORY_VERSIONS:-/usr/lib/postgresql}
last_words=${AGENTMEMORY_TERMINATION_LOG:-/dev/termination-log}
cluster=$data/pgdata

fail() {
    printf '%s\n' "$1" >&2
    printf '%s\n' "$1" >"$last_words" || true
    exit 1
}

# After a pod was deleted by force, the next one may find the last server still at work on the same volume, and each is
# process 1 of its own container. The lock goes with the server and all its children.
lock() {
    command -v flock >/dev/null || return 0
    exec 9>"$data/lock"
    flock -n 9 || {
        echo "waiting for another server to leave $data" >&2
        flock 9 &
        wait "$!" || true
    }
}

# On Debian the programs are not on the PATH; of several versions, the newest is taken.
find_programs() {
    if ! command -v postgres >/dev/null || ! command -v initdb >/dev/null; then
        for programs in "$versions"/*/bin; do
            [ ! -x "$programs/postgres" ] || [ ! -x "$programs/initdb" ] || PATH=$programs:$PATH
        done
    fi
    { command -v postgres && command -v initdb; } >/dev/null ||
        fail "program-missing: this image has no postgres and initdb on its PATH or in $versions"
    id -un >/dev/null 2>&1 ||
        fail "user-missing: user $(id -u) has no name in this image, and PostgreSQL needs one; take one based on Debian"
    version=$(postgres --version) || fail "program-missing: postgres of this image does not run"
    major=${version#*) }
    major=${major%%[!0-9]*}
}

check_data() {
    [ -s "$cluster/PG_VERSION" ] || fail "data-damaged: $cluster is there, but has no PG_VERSION; restore the volume"
    found=$(cat "$cluster/PG_VERSION")
    [ "$found" = "$major" ] || fail "major-version-mismatch: the data were made by PostgreSQL $found and this image\
 is PostgreSQL $major. Set an image of PostgreSQL $found, or dump the data with it and restore them into a new memory."
}

# Made beside and renamed: data that is there is whole, however the last attempt ended.
make_data() {
    rm -rf "$cluster.new"
    set -- --pgdata="$cluster.new" --username=postgres --pwfile="$admin/password" \
        --auth=scram-sha-256 --data-checksums --encoding=UTF8
    # Order by code point, letters by Unicode, and neither changes when the C library does.
    if [ "$major" -ge 17 ]; then
        set -- "$@" --locale=C --locale-provider=builtin --builtin-locale=C.UTF-8
    else
        set -- "$@" --locale=C --lc-ctype=C.UTF-8
    fi
    # Where the node has huge pages and the container has no share of them, the first touch is a bus error.
    [ "$major" -lt 16 ] || set -- "$@" --set=huge_pages=off
    initdb "$@"
    remember_password "$cluster.new"
    mv "$cluster.new" "$cluster"
    sync "$data" 2>/dev/null || sync
}

digest() { printf '%s' "$(cat "$admin/password")" | sha256sum; }
remember_password() { digest >"$1/agentmemory.password"; }

# Where the Secret has another password than last time (it was lost and made anew), the one in the Secret holds. It goes
# through standard input to a server of one user that nobody can connect to, and that logs no statement.
set_password() {
    [ "$(cat "$cluster/agentmemory.password" 2>/dev/null)" != "$(digest)" ] || return 0
    echo "the administrator's password is another one now" >&2
    password=$(sed "s/'/''/g" "$admin/password")
    said=$(
        printf "ALTER ROLE postgres PASSWORD '%s'\n" "$password" |
            postgres --single -D "$cluster" "$@" -c shared_preload_libraries= -c password_encryption=scram-sha-256 \
                -c log_min_error_statement=panic -c log_error_verbosity=terse postgres 2>&1 >/dev/null
    ) || fail "password-not-set: $said"
    case $said in *ERROR:*) fail "password-not-set: $said" ;; esac
    remember_password "$cluster"
}

write_access_rules() {
    {
        echo "local all all scram-sha-256"
        echo "hostssl all all all scram-sha-256"
    } >"$run/pg_hba.conf"
}

trap 'exit 143' TERM INT # process 1 has to ask for what ends others by default; the server asks for its own
find_programs
lock
[ -s "$admin/password" ] || fail "password-missing: $admin/password is empty or not there"
if [ -e "$cluster" ]; then check_data; else make_data; fi
chmod 0700 "$cluster" # a volume that was restored may have been opened to its group
set_password "$@"
write_access_rules
exec postgres -D "$cluster" "$@" \
    -c port="$port" -c listen_addresses='*' -c unix_socket_directories="$run" -c hba_file="$run/pg_hba.conf" \
    -c ssl=on -c ssl_cert_file="$tls/tls.crt" -c ssl_key_file="$tls/tls.key" \
    -c password_encryption=scram-sha-256 -c fsync=on -c full_page_writes=on -c synchronous_commit=on
