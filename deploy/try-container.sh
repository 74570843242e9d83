#!/usr/bin/env bash
# Runs the three images of deploy/Dockerfile on a real engine with as few rights
# as a container can have, and prints what it saw:
#
#   deploy/try-container.sh                       # users 65532:65532 12345:0 1000:1000
#   deploy/try-container.sh 1000720000:0          # or the ones that are named
#
# Each user gets the all-in-one image, and then gateway and envoy in containers of
# their own, with --read-only --cap-drop ALL --security-opt no-new-privileges,
# /tmp in memory and one volume at /data. The demo key is used, and things are
# tried that must be refused; containers are replaced and find their books again.
# Everything is removed at the end, but for the images. Port 12000, or LLMGW_PORT.
#
# Where no image registry can be reached:  eval "$(deploy/docker-stand-ins.sh)"
# Needs Docker with its engine on this machine, curl and python3. DOCKER_HOST
# chooses the engine as usual.
set -euo pipefail

cd "$(dirname "$0")/.."
case ${1:-} in -*) echo "usage: deploy/try-container.sh [UID:GID]..." >&2; exit 2 ;; esac
users=("$@")
[ ${#users[@]} -gt 0 ] || users=(65532:65532 12345:0 1000:1000)
port=${LLMGW_PORT:-12000}
base=http://127.0.0.1:$port
run=llmgw-try-container-$$ # of this run alone: nobody else's container is touched
started=$SECONDS

say() { printf '%4ds  %s\n' "$((SECONDS - started))" "$*"; }
die() { say "FAILED: $*"; exit 1; }

work=$(mktemp -d)
finish() {
  local code=$? name
  for name in $(docker ps -aq --filter "label=$run"); do
    [ "$code" = 0 ] || docker logs --tail 20 "$name" 2>&1 | sed 's/sk-lgw_[0-9A-Za-z]*/sk-lgw_.../g' || true
    docker rm -f -v "$name" >/dev/null || true
  done
  docker volume ls -q --filter "label=$run" | xargs -r docker volume rm >/dev/null || true
  docker network ls -q --filter "label=$run" | xargs -r docker network rm >/dev/null || true
  rm -rf "$work"
  exit "$code"
}
trap finish EXIT
trap 'exit 1' HUP INT TERM

# build TARGET: its image stays, as a cache of the next run.
image() { echo "llmgw-try-container:$1"; }
build() {
  local args=(--build-arg "VERSION=${VERSION:-try}") name
  for name in GO_IMAGE ENVOY_IMAGE STATIC_IMAGE RUN_IMAGE; do
    if [ -n "${!name:-}" ]; then args+=(--build-arg "$name=${!name}"); fi
  done
  docker build -f deploy/Dockerfile --target "$1" "${args[@]}" -t "$(image "$1")" . >"$work/build" 2>&1 ||
    { tail -n 40 "$work/build"; die "build of $1"; }
}

# confined NAME USER IMAGE ARGS...: a container with nothing but what it needs.
# Options of docker stand in the array extra, the program's own in ARGS.
extra=()
confined() {
  local name=$1 user=$2 target=$3
  shift 3
  docker run -d --name "$run-$name" --label "$run" --hostname "$name" --read-only --cap-drop ALL \
    --security-opt no-new-privileges --user "$user" --tmpfs /tmp:size=16m --pids-limit 256 --memory 768m \
    "${extra[@]}" "$(image "$target")" "$@" >/dev/null
}

# volume NAME USER: an empty volume that USER may write, as an orchestrator makes
# one (fsGroup). Docker gives an empty volume to the owner of the image's folder,
# which is 65532, whenever a container is made with it, but with :nocopy.
volume() {
  local helper
  mount=$1:/data
  docker volume create --label "$run" "$1" >/dev/null
  if [ "$2" = 65532:65532 ]; then return; fi
  mount=$1:/data:nocopy
  helper=$(docker create --label "$run" -v "$mount" "$(image gateway)")
  mkdir -p "$work/data"
  tar -C "$work" --numeric-owner --owner="${2%:*}" --group="${2#*:}" --mode=0700 -c data | docker cp - "$helper:/"
  docker rm "$helper" >/dev/null
}

# eventually SECONDS WHAT COMMAND...: waits until the command succeeds.
eventually() {
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >"$work/last" 2>&1; do
    [ "$SECONDS" -lt "$end" ] || { cat "$work/last"; die "$what did not come"; }
    sleep 0.3
  done
}
answers() { [ "$(curl -s -o /dev/null --max-time 5 -w '%{http_code}' "$base/health")" = 200 ]; }
healthy() { [ "$(docker inspect -f '{{.State.Health.Status}}' "$run-$1")" = healthy ]; }

# field PATH: a value of the JSON document on stdin, by dotted path.
field() { python3 -c 'import functools, json, sys
print(functools.reduce(lambda v, k: v[int(k) if k.isdigit() else k], sys.argv[1].split("."), json.load(sys.stdin)))' "$1"; }

# ask KEY [MORE]: a chat; prints the answer with its status on the last line.
ask() {
  curl -sSN --max-time 20 -w '\n%{http_code}\n' "$base/v1/chat/completions" -H "Authorization: Bearer $1" \
    -H 'Content-Type: application/json' -d "{\"model\":\"demo\",\"max_tokens\":20${2:-},\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}]}"
}
status() { ask "$1" | tail -n 1; }
stream=',"stream":true,"stream_options":{"include_usage":true}'
# of_stream: the tokens that the last event with usage names.
of_stream() { grep -o '"total_tokens":[0-9]*' | tail -n 1 | cut -d: -f2; }

# no_rights NAME USER: what the kernel says of every process in it.
no_rights() {
  local pid bad count=0
  for pid in $(docker top "$run-$1" -eo pid | awk 'NR > 1'); do
    [ -r "/proc/$pid/status" ] || die "process $pid of $1 cannot be looked at: the engine must be on this machine, and this user must be root"
    bad=$(grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb):' "/proc/$pid/status" | grep -v '0000000000000000$' || true)
    [ -z "$bad" ] || die "process $pid of $1 has capabilities: $bad"
    grep -q '^NoNewPrivs:[[:space:]]*1$' "/proc/$pid/status" || die "process $pid of $1 can gain rights"
    [ "$(awk '$1 == "Uid:" {print $2, $3, $4, $5}' "/proc/$pid/status" | tr ' ' '\n' | sort -u)" = "${2%:*}" ] || die "process $pid of $1 is another user"
    count=$((count + 1))
  done
  pid=$(docker inspect -f '{{.State.Pid}}' "$run-$1")
  awk '$5 == "/" {print $6}' "/proc/$pid/mountinfo" | tail -n 1 | grep -qE '^ro(,|$)' || die "the root of $1 can be written"
  [ -z "$(docker diff "$run-$1")" ] || die "$1 changed its root: $(docker diff "$run-$1" | paste -sd' ' -)"
  say "$1: $count processes of ${2%:*}, no capability in any set, no_new_privs, seccomp mode $(awk '$1 == "Seccomp:" {print $2}' "/proc/$pid/status")," \
    "root read-only and unchanged; may write $(awk '$6 ~ /^rw/ && $5 !~ /^\/(proc|sys|dev)(\/|$)/ {print $5}' "/proc/$pid/mountinfo" | grep -v '^/etc/' | sort -u | paste -sd' ' -)"
}

# secret_shown NAME: the demo key of the first start.
secret_shown() { docker logs "$run-$1" 2>&1 | grep -oE 'sk-lgw_[0-9A-Za-z]{38}' | sort -u | grep .; }

# asked NAME: clients of all kinds, and what the books in NAME say of them.
asked() {
  local got tokens streamed
  ask "$key" >"$work/answer"
  [ "$(tail -n 1 "$work/answer")" = 200 ] || { cat "$work/answer"; die "the demo key is refused"; }
  tokens=$(head -n -1 "$work/answer" | field usage.total_tokens)
  ask "$key" "$stream" >"$work/stream"
  grep -q '^data: \[DONE\]' "$work/stream" || { cat "$work/stream"; die "the stream has no end"; }
  streamed=$(of_stream <"$work/stream")
  got=$(status sk-lgw_wrong)
  [ "$got" = 403 ] || die "a wrong key gets $got"
  got=$(curl -sS -o /dev/null -w '%{http_code}' "$base/v1/models")
  [ "$got" = 401 ] || die "no key gets $got"
  spent=$((spent + tokens + streamed))
  eventually 10 "balanced books" docker exec "$run-$1" llm-gateway audit
  booked "$1"
  say "$1: JSON 200 ($tokens tokens), stream to [DONE] in $(grep -c '^data: ' "$work/stream") events ($streamed), wrong key 403, none 401; books: $spent tokens"
}
booked() {
  local got
  got=$(docker exec "$run-$1" llm-gateway usage --json | field total.total_tokens)
  [ "$got" = "$spent" ] || die "the books say $got tokens, the answers $spent"
}

# nowhere_else NAME: the program itself tries to write elsewhere, and says why not.
nowhere_else() {
  if docker exec "$run-$1" llm-gateway backup --path /usr/books.zip >"$work/write" 2>&1; then die "$1 wrote into /usr"; fi
  grep -q 'read-only file system' "$work/write" || { cat "$work/write"; die "no reason"; }
  docker exec "$run-$1" llm-gateway backup --path /data/backup.zip >"$work/write" 2>&1 || { cat "$work/write"; die "no backup into /data"; }
  say "$1: a backup into /usr is refused (read-only file system), one into /data is made"
}

# replaced NAME: stop must be clean. What runs next is a new container.
replaced() {
  local code
  docker stop -t 45 "$run-$1" >/dev/null
  code=$(docker inspect -f '{{.State.ExitCode}}' "$run-$1")
  [ "$code" = 0 ] || die "$1 stopped with exit code $code"
  docker rm "$run-$1" >/dev/null
}
# same_key NAME: the key of the first start is still good. Envoy probes the gate once
# a second, apart from /health, so that its first answers may be 503.
admitted() { [ "$(status "$key")" = 200 ]; }
same_key() {
  eventually 10 "an answer to the demo key after a restart" admitted
  spent=$((spent + $(head -n -1 "$work/answer" | field usage.total_tokens)))
  if secret_shown "$1" >/dev/null; then die "a second demo key was made"; fi
}

# together USER: the all-in-one image.
together() {
  local user=$1
  spent=0
  volume "$run-all" "$user"
  extra=(-v "$mount" -p "127.0.0.1:$port:12000")
  confined all "$user" all-in-one
  eventually 60 "health" answers
  eventually 60 "the engine's own probe" healthy all
  eventually 30 "the demo key" secret_shown all
  key=$(secret_shown all)
  asked all
  no_rights all "$user"
  nowhere_else all
  replaced all
  confined all "$user" all-in-one
  eventually 60 "health" answers
  same_key all
  asked all
  say "all: stopped with exit code 0, started again with the same volume: books and key kept"
  replaced all
  docker volume rm "$run-all" >/dev/null
}

# apart USER: gateway and envoy, which has no volume at all.
apart() {
  local user=$1 got
  spent=0
  volume "$run-data" "$user"
  serve() {
    extra=(--network "$run" --network-alias gateway -v "$mount")
    # With the address of clients it prints a demo key, as docker-compose.yaml has it.
    confined gateway "$user" gateway serve --grpc 0.0.0.0:12001 --http 0.0.0.0:12002 --demo 0.0.0.0:12003 --public-url "$base"
  }
  serve
  extra=(--network "$run" -p "127.0.0.1:$port:12000")
  confined envoy "$user" envoy
  eventually 60 "health" answers
  eventually 60 "the engine's own probe" healthy envoy
  eventually 60 "the engine's own probe" healthy gateway
  eventually 30 "the demo key" secret_shown gateway
  key=$(secret_shown gateway)
  asked gateway
  no_rights gateway "$user"
  no_rights envoy "$user"
  nowhere_else gateway
  replaced gateway
  got=$(status "$key")
  [ "$got" = 503 ] || die "without its gateway Envoy answers $got"
  serve
  eventually 60 "health" answers
  same_key gateway
  asked gateway
  say "gateway: stopped with exit code 0 (meanwhile 503), started again with the same volume: books and key kept"
  replaced gateway
  replaced envoy
  docker volume rm "$run-data" >/dev/null
}

# refused: what a person sees who gave too little.
refused() {
  local code=0
  docker volume create --label "$run" "$run-other" >/dev/null
  docker run --rm --label "$run" --read-only --cap-drop ALL --user 12345:12345 --tmpfs /tmp -v "$run-other:/data" "$(image gateway)" >"$work/out" 2>&1 || code=$?
  [ "$code" = 1 ] || { cat "$work/out"; die "a volume of another user: exit $code"; }
  say "a volume of another user: exit 1, $(tail -n 1 "$work/out")"
  code=0
  docker run --rm --label "$run" --read-only --cap-drop ALL "$(image envoy)" >"$work/out" 2>&1 || code=$?
  [ "$code" = 1 ] || { cat "$work/out"; die "no /tmp: exit $code"; }
  say "envoy without a writable /tmp: exit 1, $(tail -n 1 "$work/out")"
}

say "engine $(docker version -f '{{.Server.Version}}'), $(docker info -f '{{.Driver}}, {{join .SecurityOptions " "}}')"
for target in gateway envoy all-in-one; do build "$target"; done
say "built: $(docker images --format '{{.Tag}} {{.Size}}' llmgw-try-container | paste -sd, -)"
docker network create --label "$run" "$run" >/dev/null
for user in "${users[@]}"; do
  say "--- user $user"
  together "$user"
  apart "$user"
done
say "--- too little"
refused
say "all is well"
