#!/usr/bin/env bash
# Installs what the tests need and this machine lacks: a Chromium for the browser tests.
# Debian and Ubuntu are provided for; elsewhere install Chromium and put it on PATH.
set -euo pipefail

have_browser() {
  local name
  for name in chromium chromium-browser google-chrome google-chrome-stable headless-shell; do
    command -v "$name" >/dev/null && return
  done
  return 1
}

die() {
  echo "test-setup: $*" >&2
  exit 1
}

have_browser && exit

command -v apt-get >/dev/null ||
  die "no Chromium on PATH and no apt-get here to install it; install Chromium and run again"

as_root=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null ||
    die "no Chromium on PATH; installing it needs root and there is no sudo: apt-get install chromium"
  as_root=(sudo)
fi

# Packages must not start services on the machine that only wants to run tests.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
  "${as_root[@]}" chmod 755 "$policy"
  trap '"${as_root[@]}" rm -f "$policy"' EXIT
fi

echo "test-setup: installing chromium"
"${as_root[@]}" apt-get -qq update </dev/null
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
  apt-get -qq install -y --no-install-recommends chromium </dev/null

have_browser || die "chromium was installed, but is not on PATH"
