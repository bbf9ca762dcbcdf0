#!/usr/bin/env bash
# Runs the shop as it runs in production: a database server, a broker, and one process for each service.
# Replays a month of orders through the gateway; the exit code is the verdict of the books.
#   STORE   postgres (default) or mysql, or a URL whose path begins each database's name
#   BROKER  kafka (default), nats, redis, rabbit, store, or a URL
#   --keep  goes on serving until Ctrl-C
set -euo pipefail
cd "$(dirname "$0")/.."

store=${STORE:-postgres}
broker=${BROKER:-kafka}
keep=
[ "${1:-}" = --keep ] && keep=1
services=(order inventory payment shipping notify platform catalog gateway)

say() { echo "cluster: $*" >&2; }
die() {
  say "$*"
  exit 1
}

# Servers that already run for work by hand are used, and left alone.
wanted=()
before=$(go run ./test/services status)
want() { grep -qE "^$1 +- *$|^$1 +-$" <<<"$before" && wanted+=("$1") || true; }
case $store in
postgres) want postgres ;;
mysql) want mariadb ;;
*://*) ;;
*) die "STORE=$store is neither postgres nor mysql nor a URL" ;;
esac
case $broker in
kafka | nats | redis | rabbit) want "$broker" ;;
store | *://*) ;;
*) die "BROKER=$broker is none of kafka, nats, redis, rabbit, store and a URL" ;;
esac

pids=()
replay=
dir=$(mktemp -d)
cleanup() {
  trap - EXIT INT TERM
  say "stopping"
  [ -z "$replay" ] || kill -TERM "$replay" 2>/dev/null || true
  # The gateway last: what the others still owe goes through it.
  ((${#pids[@]})) && kill -TERM "${pids[@]}" 2>/dev/null || true
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  ((${#wanted[@]})) && go run ./test/services down "${wanted[@]}" || true
  rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

case $store in postgres) names=(postgres) ;; mysql) names=(mariadb) ;; *) names=() ;; esac
case $broker in kafka | nats | redis | rabbit) names+=("$broker") ;; esac
((${#names[@]})) && eval "$(go run ./test/services up "${names[@]}")"
run=cluster$(date +%s)
case $store in
postgres) store=${SETTLE_TEST_POSTGRES_URL%/postgres\?*}/$run?sslmode=disable ;;
mysql) store=${SETTLE_TEST_MYSQL_URL%/}/$run ;;
esac
case $broker in
kafka) broker=$SETTLE_TEST_KAFKA_URL ;;
nats) broker=$SETTLE_TEST_NATS_URL ;;
redis) broker=$SETTLE_TEST_REDIS_URL ;;
rabbit) broker=$SETTLE_TEST_RABBIT_URL ;;
esac

settle=bin/settle
say "databases $run""_*"
$settle migrate up --store "$store" --services all --create >&2

# Free ports: the kernel's own choice, given back at once.
mapfile -t ports < <(python3 - 10 <<'PY'
import socket, sys
held = [socket.socket() for _ in range(int(sys.argv[1]))]
for s in held: s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in held), sep="\n")
PY
)
pgsim=127.0.0.1:${ports[8]} platform=127.0.0.1:${ports[9]} peers=()
for i in "${!services[@]}"; do peers+=(--peer "${services[i]}=http://127.0.0.1:${ports[i]}"); done
shop=http://127.0.0.1:${ports[7]}

start() { # name, arguments
  local name=$1
  shift
  # A group of its own: Ctrl-C is for this script, which lets everything drain.
  setsid "$settle" "$@" >"$dir/$name.log" 2>&1 &
  pids+=($!)
}
start outside outside --dir "$dir" --addr-gateway "$pgsim" --addr-platform "$platform" --webhook-url "$shop/webhooks/payments"
for i in "${!services[@]}"; do
  start "${services[i]}" serve --services "${services[i]}" --store "$store" --broker "$broker" --topic-prefix "$run" --dir "$dir" \
    --addr "127.0.0.1:${ports[i]}" "${peers[@]}" --gateway-url "http://$pgsim" --platform-url "http://$platform"
done
for i in "${!services[@]}"; do
  for ((n = 0; ; n++)); do
    curl -fs -o "$dir/ready" "http://127.0.0.1:${ports[i]}/readyz" && break
    kill -0 "${pids[i + 1]}" 2>/dev/null && ((n < 600)) || { tail -n 20 "$dir/${services[i]}.log" >&2; die "${services[i]} is not ready"; }
    sleep 0.1
  done
  say "${services[i]} is ready at http://127.0.0.1:${ports[i]}, process ${pids[i + 1]}"
done

verdict=0
$settle replay-data --url "$shop" --token-file "$dir/operator-token" --gateway-url "http://$pgsim" --platform-url "http://$platform" \
  --journal "$dir/replay.journal" --report "$dir/report.json" &
replay=$!
wait "$replay" || verdict=$?
replay=
if [ -n "$keep" ]; then
  say "serving $shop until Ctrl-C; the operator's token is in $dir/operator-token"
  while sleep 1; do :; done
fi
exit "$verdict"
