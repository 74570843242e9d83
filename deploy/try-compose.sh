#!/usr/bin/env bash
# Tries docker-compose.yaml on a real engine, and prints what it saw:
#
#   deploy/try-compose.sh             # Envoy, one gateway, Redis
#   deploy/try-compose.sh replicas    # three gateways and PostgreSQL
#   deploy/try-compose.sh secrets     # the same, with all parts of deploy/compose
#
# It builds, starts, asks the demo model with the demo key, looks into the books,
# stops and starts again, and removes everything at the end, its volumes too.
# The project has a name of its own: a gateway that runs from the same checkout
# is left alone, and its .env is not read. Port 12000, or LLMGW_PORT (and
# 12090, or ADMIN_PORT).
#
# Where no image registry can be reached:  eval "$(deploy/docker-stand-ins.sh)"
# Needs Docker with compose (v2, or docker-compose 1.29), curl and python3.
# DOCKER_HOST chooses the engine as usual.
set -euo pipefail

cd "$(dirname "$0")/.."
profile=${1:-default}
case $profile in
  default | replicas | secrets) ;;
  *) echo "usage: deploy/try-compose.sh [default|replicas|secrets]" >&2; exit 2 ;;
esac
export LLMGW_PORT=${LLMGW_PORT:-12000} ADMIN_PORT=${ADMIN_PORT:-12090} VERSION=${VERSION:-try}
base=http://127.0.0.1:$LLMGW_PORT
started=$SECONDS

say() { printf '%4ds  %s\n' "$((SECONDS - started))" "$*"; }
die() { say "FAILED: $*"; exit 1; }

if docker compose version >/dev/null 2>&1; then compose=(docker compose)
elif command -v docker-compose >/dev/null; then compose=(docker-compose)
else die "neither docker compose nor docker-compose is here"; fi

work=$(mktemp -d)
: >"$work/env"
export GRAFANA_ADMIN_PASSWORD_FILE=$work/env # docker-compose 1.29 misses it even where nobody reads it
# What a person would have in .env. The environment would win over it.
unset COMPOSE_PROFILES COMPOSE_FILE DATABASE_URL LLM_SERVER_URL LLMGW_RATELIMIT__REPLICAS SECRETS_DIR
gateways=(gateway)
ports=1
if [ "$profile" = replicas ]; then
  gateways=(gateway gateway-2 gateway-3)
  printf '%s\n' COMPOSE_PROFILES=replicas DATABASE_URL=postgres://llmgw:llmgw@postgres:5432/llmgw \
    LLMGW_RATELIMIT__REPLICAS=3 >"$work/env"
fi
if [ "$profile" = secrets ]; then
  gateways=(gateway gateway-2 gateway-3)
  ports=2 # and the admin API's
  secrets=$work/secrets
  random() { od -An -N 32 -tx1 /dev/urandom | tr -d ' \n'; }
  (
    umask 022
    mkdir "$secrets"
    for name in llm_api_key allowed_api_keys llmgw_key_pepper llmgw_admin_token postgres_password redis_password; do
      random >"$secrets/$name"
    done
    printf 'postgres://llmgw:%s@postgres:5432/llmgw' "$(cat "$secrets/postgres_password")" >"$secrets/database_url"
    printf 'requirepass %s\n' "$(cat "$secrets/redis_password")" >"$secrets/redis.conf"
  )
  printf '%s\n' COMPOSE_PROFILES=replicas LLMGW_RATELIMIT__REPLICAS=3 "SECRETS_DIR=$secrets" \
    "COMPOSE_FILE=docker-compose.yaml:$(printf '%s\n' deploy/compose/*.yaml | paste -sd: -)" >"$work/env"
fi
dc() { "${compose[@]}" --env-file "$work/env" -p "llmgw-try-$profile" "$@"; }

finish() {
  local code=$?
  if [ "$code" != 0 ]; then
    dc ps || true
    dc logs --tail=30 || true
  fi
  dc down -v --remove-orphans >"$work/down" 2>&1 || cat "$work/down"
  rm -rf "$work"
  exit "$code"
}
trap finish EXIT
trap 'exit 1' HUP INT TERM

# in_gateway ARGS...: a command of the program inside the first gateway.
in_gateway() { dc exec -T gateway llm-gateway "$@"; }

# field PATH: a value of the JSON document on stdin, by dotted path.
field() { python3 -c 'import functools, json, sys
print(functools.reduce(lambda v, k: v[int(k) if k.isdigit() else k], sys.argv[1].split("."), json.load(sys.stdin)))' "$1"; }

# ask KEY: a chat; prints the answer with its status on the last line.
ask() {
  curl -sS --max-time 20 -w '\n%{http_code}\n' "$base/v1/chat/completions" -H "Authorization: Bearer $1" \
    -H 'Content-Type: application/json' -d '{"model":"demo","max_tokens":20,"messages":[{"role":"user","content":"Hello"}]}'
}
status() { ask "$1" | tail -n 1; }

# eventually SECONDS WHAT COMMAND...: waits until the command succeeds.
eventually() {
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >"$work/last" 2>&1; do
    [ "$SECONDS" -lt "$end" ] || { cat "$work/last"; die "$what did not come"; }
    sleep 0.5
  done
}

container() { dc ps -q "$1"; }
healthy() { [ "$(docker inspect -f '{{.State.Health.Status}}' "$(container "$1")")" = healthy ]; }
all_healthy() { for service in envoy redis "${gateways[@]}"; do healthy "$service" || return 1; done; }

up() {
  dc up -d "$@" >"$work/up" 2>&1 || { cat "$work/up"; die "up"; }
  eventually 120 "health" all_healthy
}

say "engine $(docker version -f '{{.Server.Version}}'), ${compose[*]} $("${compose[@]}" version --short), profile $profile"
dc build >"$work/build" 2>&1 || { tail -n 40 "$work/build"; die "build"; }
say "built: $(docker images --format '{{.Repository}} {{.Size}}' | grep -E '^llm-gateway(-envoy)? ' | paste -sd, -)"
up
say "healthy: envoy redis ${gateways[*]}"

published=$(docker ps --filter "name=llmgw-try-$profile" --format '{{.Ports}}' | grep -c -- '->' || true)
[ "$published" = "$ports" ] || die "$published containers publish a port"
for service in envoy redis "${gateways[@]}"; do
  hardened=$(docker inspect -f '{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.Config.User}} {{.HostConfig.SecurityOpt}}' "$(container "$service")")
  uids=$(docker top "$(container "$service")" -eo pid,uid,args | awk 'NR > 1 {print $2}' | sort -u | paste -sd' ' -)
  case " $uids " in *" 0 "*) die "$service runs as root" ;; esac
  say "$service: read-only, caps dropped, user, options: $hardened; uids $uids"
done

secret_shown() { dc logs --no-color gateway 2>&1 | grep -oE 'sk-lgw_[0-9A-Za-z]{38}' | sort -u | grep .; }
if [ "$profile" = secrets ]; then
  key=$(cat "$secrets/allowed_api_keys")
else
  eventually 30 "the demo key in the log" secret_shown
  [ "$(secret_shown | wc -l)" = 1 ] || die "not one key: $(secret_shown | wc -l)"
  key=$(secret_shown)
  dc logs --no-color gateway 2>&1 | grep -A 6 'is ready on' | sed "s/$key/sk-lgw_.../g; s/^/       /"
fi

ask "$key" >"$work/answer"
[ "$(tail -n 1 "$work/answer")" = 200 ] || { cat "$work/answer"; die "the first key is refused"; }
tokens=$(head -n -1 "$work/answer" | field usage.total_tokens)
say "a chat with the first key: 200, $tokens tokens"
wrong=$(status sk-lgw_wrong)
[ "$wrong" = 403 ] || die "a wrong key gets $wrong"
none=$(curl -sS -o /dev/null -w '%{http_code}' "$base/v1/models")
[ "$none" = 401 ] || die "no key gets $none"
say "a wrong key: 403, none: 401"
booked() { in_gateway usage --json | field total.total_tokens; }
[ "$(booked)" = "$tokens" ] || die "the books say $(booked) tokens"
say "the books: $(in_gateway usage --json | tr -d '\n' | cut -c1-200)"

# From the clients' network there is a way to Envoy only.
network=llmgw-try-${profile}_public
for target in gateway:12002 gateways:12001 redis:6379; do
  if docker run --rm --network "$network" llm-gateway healthcheck --url "http://$target/health" >"$work/reach" 2>&1; then
    die "$target can be reached from the clients' network"
  fi
  grep -q 'does not answer' "$work/reach" || { cat "$work/reach"; die "$target answers in the clients' network"; }
done
say "gateway and redis cannot be reached from the clients' network"

if [ "$profile" = secrets ]; then
  # Not in the environment of a container, and in no log.
  docker inspect $(dc ps -q) >"$work/seen"
  dc logs --no-color >>"$work/seen" 2>&1
  for name in llm_api_key allowed_api_keys llmgw_key_pepper llmgw_admin_token postgres_password redis_password; do
    if grep -qF "$(cat "$secrets/$name")" "$work/seen"; then die "$name can be seen from outside"; fi
  done
  in_gateway check >"$work/check" 2>&1 || true # it misses Envoy, which is in another container
  for name in LLM_API_KEY ALLOWED_API_KEYS DATABASE_URL REDIS_PASSWORD LLMGW_KEY_PEPPER LLMGW_ADMIN__TOKEN; do
    grep -q "${name}_FILE" "$work/check" || { cat "$work/check"; die "$name does not come from its file"; }
  done
  dc exec -T redis redis-cli get x 2>&1 | grep -q NOAUTH || die "Redis answers without its password"
  admin() { curl -sS -o /dev/null -w '%{http_code}' "http://127.0.0.1:$ADMIN_PORT/admin/keys" "$@"; }
  [ "$(admin)" = 401 ] || die "the admin API without its token: $(admin)"
  [ "$(admin -H "Authorization: Bearer $(cat "$secrets/llmgw_admin_token")")" = 200 ] || die "the admin API with its token"
  say "six secrets from files: in no environment and no log; Redis and the admin API (127.0.0.1:$ADMIN_PORT) want theirs"
fi

if [ "$profile" = replicas ]; then
  # More keys, so that the window of one does not stop the trial.
  asked=0
  for _ in 1 2 3; do
    other=$(in_gateway create-key --limit 100000 --rpm 1000 --json | field key)
    sleep 1.5 # within a second every gateway knows it
    for _ in $(seq 20); do
      got=$(status "$other")
      [ "$got" = 200 ] || die "a request got $got"
      asked=$((asked + 1))
    done
  done
  total=$(in_gateway usage --json | field total.requests)
  [ "$total" = "$((asked + 1))" ] || die "the books say $total requests, $((asked + 1)) were answered"
  say "$asked more requests, all 200, all in the books"
  docker kill "$(container gateway-2)" >/dev/null
  for _ in $(seq 20); do
    got=$(status "$other")
    [ "$got" = 200 ] || die "with gateway-2 killed a request got $got"
  done
  say "gateway-2 killed: 20 requests, all 200"
  docker pause "$(container gateway-3)" >/dev/null
  lost=0 begin=$SECONDS good=0
  while [ "$good" -lt 20 ] && [ $((SECONDS - begin)) -lt 60 ]; do
    if [ "$(status "$other")" = 200 ]; then good=$((good + 1)); else lost=$((lost + 1)) good=0; fi
  done
  [ "$good" = 20 ] || die "with gateway-3 hung the rest does not take over"
  say "gateway-3 hung: $lost requests lost, then 20 in a row through the last one, after $((SECONDS - begin)) s"
  docker unpause "$(container gateway-3)" >/dev/null
  docker start "$(container gateway-2)" >/dev/null
  eventually 60 "all three again" all_healthy
  total=$(booked)
else
  total=$tokens
fi

# A changed .env is in force after the next up.
# shellcheck disable=SC2016 # the variable is the container's
echo LLM_SERVER_URL=http://127.0.0.1:9/v1 >>"$work/env"
up
got=$(status "$key")
[ "$got" = 503 ] || [ "$got" = 502 ] || die "with another LLM_SERVER_URL the request got $got"
sed -i '/LLM_SERVER_URL/d' "$work/env"
up
[ "$(status "$key")" = 200 ] || die "the demo model is not back"
say "LLM_SERVER_URL changed in .env: $got from a server that is not there, then the demo model again"
total=$(booked)

down=$SECONDS
dc down >"$work/down" 2>&1 || { cat "$work/down"; die "down"; }
say "down took $((SECONDS - down)) s"
up
[ "$(booked)" = "$total" ] || die "after down and up the books say $(booked) tokens, before $total"
[ "$(status "$key")" = 200 ] || die "after down and up the first key is refused"
[ "$(status sk-lgw_wrong)" = 403 ] || die "after down and up a wrong key is not refused"
if dc logs --no-color gateway 2>&1 | grep -q 'Demo key'; then die "a second demo key was made"; fi
say "up again: books kept ($total tokens), the first key works, no demo key was made"
in_gateway audit | sed 's/^/       /'

# Without its gateways Envoy lets nobody in.
dc stop "${gateways[@]}" >"$work/stop" 2>&1 || { cat "$work/stop"; die "stop"; }
got=$(status "$key")
[ "$got" = 503 ] || die "without a gateway a request got $got"
say "gateways stopped: 503"
say "all is well"
