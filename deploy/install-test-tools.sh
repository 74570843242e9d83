#!/usr/bin/env bash
# Installs what the tests need and the machine lacks: a C compiler for the race
# detector, Python's venv for the SDK clients, Redis and PostgreSQL (the tests
# start servers of their own; none of the system is started), Chromium, which
# reads the documentation pages and asks from other web pages, and the programs
# that the files in deploy/ are for: Prometheus with promtool, nginx, systemd's
# analyzer, Helm and Kustomize with a validator of what they render, the control planes
# of Istio and Envoy Gateway. Where it may not install, it says what is missing. Programs that are Go
# modules are built into the cache, each once for its version.
set -euo pipefail

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

install_packages() {
  [ ${#missing[@]} -eq 0 ] && return
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "the tests need: ${missing[*]} (install them with your package manager, then run make test again)" >&2
    exit 1
  fi
  echo "installing for the tests: ${missing[*]}" >&2
  # Packages of servers start them; a policy of 101 tells them not to.
  local policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  apt-get update -qq >&2
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
}
install_packages

# go_tool NAME VERSION PACKAGE builds a Go program in a version of its own into the
# cache, where rig.GoTool finds it.
tools="${XDG_CACHE_HOME:-$HOME/.cache}/llm-gateway/tools"
go_tool() {
  [ -x "$tools/$1-$2" ] && return
  echo "building for the tests: $1 $2 (minutes, once)" >&2
  mkdir -p "$tools"
  local build
  build=$(mktemp -d "$tools/.build.XXXXXX")
  # Outside of this module: its go.mod must not choose their versions.
  (cd / && GOBIN=$build GOFLAGS= CGO_ENABLED=0 go install -trimpath -ldflags '-s -w' "$3@$2" >&2)
  mv "$build"/* "$tools/$1-$2"
  rmdir "$build"
}

# The Kubernetes manifests in deploy/ are rendered and held to the schemas. The types
# of the Prometheus operator are read from its module.
go_tool helm v4.3.1 helm.sh/helm/v4/cmd/helm
go_tool kustomize v5.8.2 sigs.k8s.io/kustomize/kustomize/v5
go_tool kubectl-validate v0.0.4 sigs.k8s.io/kubectl-validate
(cd / && go mod download github.com/prometheus-operator/prometheus-operator@v0.85.0)

# The control planes that turn what envoy-config prints into Envoy's configuration.
# Releases of Istio have no version of their own as a module.
go_tool pilot-discovery v0.0.0-20260827124520-eed52ebb66ad istio.io/istio/pilot/cmd/pilot-discovery
go_tool envoy-gateway v1.9.1 github.com/envoyproxy/gateway/cmd/envoy-gateway
