#!/usr/bin/env bash
# A test aid: where no image registry can be reached, this makes local stand-ins
# for the base images of deploy/Dockerfile, and for the Redis and PostgreSQL of
# docker-compose.yaml, out of this machine's own files, and prints the variables
# that docker-compose.yaml and `docker build` take:
#
#   eval "$(deploy/docker-stand-ins.sh)"
#   docker compose up -d --build
#
# The stand-ins hold what the Dockerfile uses of the real images: Go, a shell and
# this project's modules (the build needs no network); an Envoy; glibc and the
# certificate authorities. Redis and PostgreSQL are this machine's versions, with
# just enough of the official images around them. They are for trying the files
# out, not for publishing what is built on them.
#
# Needs Linux with glibc, Go, Docker, Redis and PostgreSQL (without one of the
# last two its stand-in is left out), and for a missing Envoy what
# deploy/install-envoy.sh needs. DOCKER_HOST chooses the engine as usual.
set -euo pipefail

cd "$(dirname "$0")/.."
NAME=llm-gateway-stand-in

say() { echo "docker-stand-ins: $*" >&2; }
die() { say "$*"; exit 1; }

for tool in docker go ldd tar; do
  command -v "$tool" >/dev/null || die "$tool is missing; install it"
done
docker version >/dev/null 2>&1 || die "no Docker engine answers; start one, or name it with DOCKER_HOST"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# place ROOT FILE [AT]: a copy of FILE under ROOT, links followed, at AT or where
# it is on this machine.
place() {
  install -D -m "$(stat -L -c %a "$2")" "$2" "$1${3:-$2}"
}

# libraries ROOT PROGRAM: what PROGRAM is linked against, the loader included.
libraries() {
  local file
  { ldd "$2" || die "$2 is not linked against this machine's libraries"; } |
    { grep -oE '/[^ ]+' || true; } | while read -r file; do # none: it needs only what loads it
      place "$1" "$file"
    done
}

# base ROOT: the folders and files that any of the images has.
base() {
  mkdir -p "$1/etc" "$1/tmp"
  chmod 1777 "$1/tmp"
  printf 'root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n' >"$1/etc/passwd"
  printf 'root:x:0:\nnonroot:x:65532:\n' >"$1/etc/group"
}

# import ROOT TAG INSTRUCTION...: the folder ROOT as an image.
import() {
  local root=$1 tag=$NAME-$2 changes=()
  shift 2
  for instruction in "$@"; do changes+=(--change "$instruction"); done
  tar -C "$root" --owner=0 --group=0 --numeric-owner -c . | docker import "${changes[@]}" - "$tag" >/dev/null
  say "$tag is made"
}

go_image() {
  local root=$work/go goroot proxy
  base "$root"
  goroot=$(go env GOROOT)
  proxy=$(go env GOPROXY)
  mkdir -p "$root/usr/local" "$root/go"
  # Exactly the modules of this project, from this machine's cache where they are
  # in it. go.sum is what they are held to.
  GOFLAGS=-modcacherw GOMODCACHE=$root/go/pkg/mod GOPROXY="file://$(go env GOMODCACHE)/cache/download,$proxy" GOSUMDB=off \
    go mod download
  cp -a "$goroot" "$root/usr/local/go"
  for tool in sh mkdir; do
    place "$root" "$(command -v "$tool")" "/bin/$tool"
    libraries "$root" "$(command -v "$tool")"
  done
  import "$root" go 'ENV PATH=/usr/local/go/bin:/usr/bin:/bin' 'ENV GOPATH=/go' 'ENV GOTOOLCHAIN=local' 'ENV GOPROXY=off'
}

envoy_image() {
  local root=$work/envoy
  mkdir -p "$root"
  place "$root" "$1" /usr/local/bin/envoy
  import "$root" envoy
}

static_image() {
  local root=$work/static certificates=/etc/ssl/certs/ca-certificates.crt
  base "$root"
  if [ -f "$certificates" ]; then place "$root" "$certificates"; fi
  import "$root" static 'USER 65532:65532'
}

run_image() {
  local root=$work/run certificates=/etc/ssl/certs/ca-certificates.crt
  base "$root"
  libraries "$root" "$1"
  if [ -f "$certificates" ]; then place "$root" "$certificates"; fi
  import "$root" run 'USER 65532:65532'
}

# program ROOT FILE: a program where a search finds it, with its libraries.
program() {
  place "$1" "$2" "/usr/local/bin/$(basename "$2")"
  libraries "$1" "$2"
}

# user ROOT NAME ID: a user of that image.
user() {
  printf '%s:x:%s:%s::/:/sbin/nologin\n' "$2" "$3" "$3" >>"$1/etc/passwd"
  printf '%s:x:%s:\n' "$2" "$3" >>"$1/etc/group"
}

redis_image() {
  local root=$work/redis
  base "$root"
  user "$root" redis 999
  program "$root" "$(command -v redis-server)"
  program "$root" "$(command -v redis-cli)"
  mkdir -m 1777 "$root/data"
  import "$root" redis 'WORKDIR /data' 'VOLUME /data' 'USER redis' 'CMD ["redis-server"]'
}

# postgres_image BIN: the server at its own paths, which it looks for its files
# by. The database itself is a folder inside the volume, so that any user can
# own it.
postgres_image() {
  local root=$work/postgres bin=$1 share library
  share=$("$bin/pg_config" --sharedir 2>/dev/null || echo "/usr/share/postgresql/$(basename "$(dirname "$bin")")")
  base "$root"
  user "$root" postgres 70
  for tool in initdb postgres psql pg_isready; do
    place "$root" "$bin/$tool"
    libraries "$root" "$bin/$tool"
  done
  for library in "$(dirname "$bin")"/lib/*.so; do
    case $library in *llvm*) continue ;; esac # just-in-time compilation; 100 MB
    place "$root" "$library"
    libraries "$root" "$library"
  done
  mkdir -p "$root$share" "$root/usr/share"
  cp -RL "$share/." "$root$share"
  if [ -d /usr/share/zoneinfo ]; then cp -RL /usr/share/zoneinfo "$root/usr/share/zoneinfo"; fi
  for tool in sh rm; do
    place "$root" "$(command -v "$tool")" "/bin/$tool"
    libraries "$root" "$(command -v "$tool")"
  done
  mkdir -p "$root/var/lib/postgresql" "$root/run/postgresql"
  ln -s ../run "$root/var/run"
  mkdir -m 1777 "$root/var/lib/postgresql/data"
  chmod 1777 "$root/run/postgresql"
  cat >"$root/bin/docker-entrypoint.sh" <<'SH'
#!/bin/sh
# As the official image: the first start makes the user and the database.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  user=${POSTGRES_USER:-postgres}
  if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then
    read -r POSTGRES_PASSWORD <"$POSTGRES_PASSWORD_FILE" || [ -n "$POSTGRES_PASSWORD" ]
  fi
  if [ -z "${POSTGRES_PASSWORD:-}" ]; then
    echo "set POSTGRES_PASSWORD for the first start" >&2
    exit 1
  fi
  printf '%s\n' "$POSTGRES_PASSWORD" >/tmp/password
  initdb -D "$PGDATA" -U "$user" --pwfile=/tmp/password --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 --locale=C
  rm /tmp/password
  printf 'host all all all scram-sha-256\n' >>"$PGDATA/pg_hba.conf"
  printf "listen_addresses = '*'\n" >>"$PGDATA/postgresql.conf"
  if [ "${POSTGRES_DB:-$user}" != postgres ]; then
    printf 'CREATE DATABASE "%s";\n' "${POSTGRES_DB:-$user}" | postgres --single -D "$PGDATA" postgres >/dev/null
  fi
fi
exec "$@"
SH
  chmod 755 "$root/bin/docker-entrypoint.sh"
  import "$root" postgres "ENV PATH=$bin:/usr/bin:/bin" 'ENV PGDATA=/var/lib/postgresql/data/pgdata' 'VOLUME /var/lib/postgresql/data' \
    'USER postgres' 'ENTRYPOINT ["/bin/docker-entrypoint.sh"]' 'CMD ["postgres"]'
}

# postgres_bin: the folder of this machine's newest PostgreSQL.
postgres_bin() {
  local bin
  bin=$(find /usr/lib/postgresql -path '*/bin/initdb' 2>/dev/null | sort -V | tail -n 1)
  if [ -z "$bin" ]; then bin=$(command -v initdb || true); fi
  if [ -n "$bin" ]; then dirname "$(readlink -f "$bin")"; fi
}

envoy=$(deploy/install-envoy.sh)
go_image
envoy_image "$envoy"
static_image
run_image "$envoy"
printf 'export GO_IMAGE=%s ENVOY_IMAGE=%s STATIC_IMAGE=%s RUN_IMAGE=%s\n' "$NAME-go" "$NAME-envoy" "$NAME-static" "$NAME-run"
if command -v redis-server >/dev/null; then
  redis_image
  printf 'export REDIS_IMAGE=%s\n' "$NAME-redis"
fi
postgres=$(postgres_bin)
if [ -n "$postgres" ]; then
  postgres_image "$postgres"
  printf 'export POSTGRES_IMAGE=%s\n' "$NAME-postgres"
fi
