#!/usr/bin/env bash
# Runs every fuzz target of the workspace for the given time (default 10s), one after the other.
# Stops at the first failure; go test has then saved the input under testdata/fuzz.
set -euo pipefail
cd "$(dirname "$0")/.."

fuzztime=${1:-10s}
listing='{{$p := .}}{{range .TestGoFiles}}{{$p.ImportPath}} {{$p.Dir}}/{{.}}{{"\n"}}{{end}}'
listing+='{{range .XTestGoFiles}}{{$p.ImportPath}} {{$p.Dir}}/{{.}}{{"\n"}}{{end}}'

targets=$(go list -f "$listing" work | while read -r pkg file; do
  [ -z "$pkg" ] || sed -nE "s|^func (Fuzz[A-Za-z0-9_]*)\(.*|$pkg \1|p" "$file"
done)
[ -n "$targets" ] || { echo "fuzz: no fuzz target found" >&2; exit 1; }

while read -r pkg target; do
  echo "fuzz: $target in $pkg"
  go test -run '^$' -fuzz "^$target\$" -fuzztime "$fuzztime" "$pkg" </dev/null
done <<<"$targets"
