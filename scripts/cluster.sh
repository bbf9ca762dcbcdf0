#!/usr/bin/env bash
# Runs the shop as it runs in production: a database server, a broker, and one process for each service.
# Replays a month of orders through the gateway; the exit code is the verdict of the books.
#   STORE   postgres (default) or mysql, or a URL whose path begins each database's name
#   BROKER  kafka (default), nats, redis, rabbit, store, or a URL
#   KILLS   how many services and servers are killed (SIGKILL) and started again meanwhile, at random. Default 0
#   SEED    repeats which and when. Default: a new one, which is printed
#   --keep  goes on serving until Ctrl-C
set -euo pipefail
cd "$(dirname "$0")/.."

store=${STORE:-postgres}
broker=${BROKER:-kafka}
kills=${KILLS:-0}
seed=${SEED:-$$}
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

start() { # place among pids, name, arguments
  local place=$1 name=$2
  shift 2
  # A group of its own: Ctrl-C is for this script, which lets everything drain.
  setsid "$settle" "$@" >>"$dir/$name.log" 2>&1 &
  pids[place]=$!
}
start_service() { # place among services
  start $(($1 + 1)) "${services[$1]}" serve --services "${services[$1]}" --store "$store" --broker "$broker" --topic-prefix "$run" --dir "$dir" \
    --addr "127.0.0.1:${ports[$1]}" "${peers[@]}" --gateway-url "http://$pgsim" --platform-url "http://$platform"
}
start 0 outside outside --dir "$dir" --addr-gateway "$pgsim" --addr-platform "$platform" --webhook-url "$shop/webhooks/payments"
for i in "${!services[@]}"; do start_service "$i"; done
for i in "${!services[@]}"; do
  for ((n = 0; ; n++)); do
    curl -fs -o "$dir/ready" "http://127.0.0.1:${ports[i]}/readyz" && break
    kill -0 "${pids[i + 1]}" 2>/dev/null && ((n < 600)) || { tail -n 20 "$dir/${services[i]}.log" >&2; die "${services[i]} is not ready"; }
    sleep 0.1
  done
  say "${services[i]} is ready at http://127.0.0.1:${ports[i]}, process ${pids[i + 1]}"
done

# A process that finds its database or its broker away when it starts ends, and is started again, as a
# supervisor does.
revive() {
  local i
  for i in "${!services[@]}"; do
    kill -0 "${pids[i + 1]}" 2>/dev/null || { say "starting ${services[i]} again: $(tail -n 1 "$dir/${services[i]}.log" | cut -c1-300)" && start_service "$i"; }
  done
}

# Kills what a number chooses: a service, or one of the servers that this script may start again.
kill_one() {
  local n=$((RANDOM % (${#services[@]} + ${#names[@]})))
  if ((n < ${#services[@]})); then
    kill -KILL "${pids[n + 1]}" 2>/dev/null || true
    wait "${pids[n + 1]}" 2>/dev/null || true
    start_service "$n"
    say "killed ${services[n]}"
    return
  fi
  local server=${names[n - ${#services[@]}]}
  # Whoever has the server's directory open for its data, and is not its keeper.
  pkill -KILL -f "tmp/services/$server/" || true
  go run ./test/services down "$server" >/dev/null 2>&1 || true # Its keeper.
  go run ./test/services up "$server" >/dev/null 2>&1 || die "$server does not start again"
  say "killed $server"
}

verdict=0
$settle replay-data --url "$shop" --token-file "$dir/operator-token" --gateway-url "http://$pgsim" --platform-url "http://$platform" \
  --journal "$dir/replay.journal" --report "$dir/report.json" &
replay=$!
if ((kills)); then
  say "seed $seed"
  RANDOM=$seed
  for ((k = 0; k < kills; k++)); do
    sleep "0.$((RANDOM % 900 + 100))"
    kill_one
    revive
  done
  while kill -0 "$replay" 2>/dev/null; do
    revive
    sleep 1
  done
fi
wait "$replay" || verdict=$?
replay=
if [ -n "$keep" ]; then
  say "serving $shop until Ctrl-C; the operator's token is in $dir/operator-token"
  while sleep 1; do :; done
fi
exit "$verdict"
