#!/usr/bin/env bash
# A test aid: where no image registry can be reached, this makes local stand-ins
# for the base images of deploy/Dockerfile out of this machine's own files, and
# prints the variables that docker-compose.yaml and `docker build` take:
#
#   eval "$(deploy/docker-stand-ins.sh)"
#   docker compose up -d --build
#
# The stand-ins hold what the Dockerfile uses of the real images: Go, a shell and
# this project's modules (the build needs no network); an Envoy; glibc and the
# certificate authorities. They are for trying the files out, not for publishing
# what is built on them.
#
# Needs Linux with glibc, Go, Docker, and for a missing Envoy what
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
    grep -oE '/[^ ]+' | while read -r file; do
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

run_image() {
  local root=$work/run certificates=/etc/ssl/certs/ca-certificates.crt
  base "$root"
  libraries "$root" "$1"
  if [ -f "$certificates" ]; then place "$root" "$certificates"; fi
  import "$root" run 'USER 65532:65532'
}

envoy=$(deploy/install-envoy.sh)
go_image
envoy_image "$envoy"
run_image "$envoy"
printf 'export GO_IMAGE=%s ENVOY_IMAGE=%s RUN_IMAGE=%s\n' "$NAME-go" "$NAME-envoy" "$NAME-run"
