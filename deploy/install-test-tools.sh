#!/usr/bin/env bash
# Installs what the tests need and the machine lacks: a C compiler for the race
# detector, Python's venv for the SDK clients, Redis and PostgreSQL (the tests
# start servers of their own; none of the system is started), Chromium, which
# reads the documentation pages and asks from other web pages, and the programs
# that the files in deploy/ are for: Prometheus with promtool, nginx, and systemd's
# analyzer. Where it may not install, it says what is missing. Programs in Go are
# built into the cache, each version once, from sources that Go's checksums vouch for.
set -euo pipefail

tools=${XDG_CACHE_HOME:-$HOME/.cache}/llm-gateway/tools
install_go_program() { # module/path version: as NAME-VERSION; minutes the first time
  local name=${1##*/}
  local file=$tools/$name-$2
  [ -x "$file" ] && return
  echo "building for the tests: $name $2" >&2
  mkdir -p "$tools"
  local fresh
  fresh=$(mktemp -d "$tools/.build-XXXXXX")
  (cd "$fresh" && GOBIN=$fresh GOFLAGS='' CGO_ENABLED=0 go install -trimpath -ldflags '-s -w' "$1@$2")
  mv "$fresh/$name" "$file"
  rmdir "$fresh"
}
install_go_program github.com/envoyproxy/gateway/cmd/envoy-gateway v1.9.1

missing=()
command -v cc >/dev/null || command -v gcc >/dev/null || missing+=(gcc libc6-dev)
command -v python3 >/dev/null || missing+=(python3)
command -v curl >/dev/null || missing+=(curl)
python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)

command -v redis-server >/dev/null || missing+=(redis-server)
postgres=(/usr/lib/postgresql/*/bin/initdb) # Debian keeps it off PATH
[ -x "${postgres[0]}" ] || command -v initdb >/dev/null || missing+=(postgresql)
command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || missing+=(chromium)

{ command -v prometheus && command -v promtool; } >/dev/null || missing+=(prometheus)
PATH=$PATH:/usr/sbin command -v nginx >/dev/null || missing+=(nginx) # Debian keeps it off the PATH of users
command -v systemd-analyze >/dev/null || missing+=(systemd)

[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "installing for the tests: ${missing[*]}" >&2
  # Packages of servers start them; a policy of 101 tells them not to.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
  fi
  apt-get update -qq >&2
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
  exit 0
fi
echo "the tests need: ${missing[*]} (install them with your package manager, then run make test again)" >&2
exit 1
