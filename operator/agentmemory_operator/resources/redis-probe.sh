# Whether Redis serves. While it loads its data it does not; when it refuses this login, or takes no writes because the
# disk is full, it still serves others, and reads. With the argument `alive`: whether it answers at all. It asks itself,
# so there is no one to verify.
set -eu

admin=${AGENTMEMORY_ADMIN:-/etc/agentmemory/admin}
port=${AGENTMEMORY_PORT:-6379}

cli=$(command -v redis-cli || command -v valkey-cli) || {
    echo "this image has neither redis-cli nor valkey-cli on its PATH" >&2
    exit 1
}
REDISCLI_AUTH=$(cat "$admin/password")
export REDISCLI_AUTH
answer=$("$cli" --tls --insecure -p "$port" --user operator --no-auth-warning ping 2>&1) || true
case $answer in
    *PONG* | *WRONGPASS* | *NOAUTH* | *MISCONF* | *BUSY*) exit 0 ;;
    *LOADING*) [ "${1:-}" != alive ] || exit 0 ;;
esac
printf '%s\n' "$answer" >&2
exit 1
