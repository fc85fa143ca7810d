# Whether PostgreSQL takes connections. With the argument `alive`: whether it answers at all, be it by refusing because
# it still recovers.
set -eu

run=${AGENTMEMORY_RUN:-/run/postgresql}
port=${AGENTMEMORY_PORT:-5432}

for programs in "${AGENTMEMORY_VERSIONS:-/usr/lib/postgresql}"/*/bin; do PATH=$PATH:$programs; done
answer=0
pg_isready -q -h "$run" -p "$port" -U postgres -d postgres || answer=$?
[ "$answer" -eq 0 ] || { [ "$answer" -eq 1 ] && [ "${1:-}" = alive ]; }
