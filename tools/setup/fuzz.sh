#!/usr/bin/env bash
# Runs every fuzz target of the module for the given time, one after the other.
set -euo pipefail

time=${1:?usage: fuzz.sh TIME}
for package in $(go list ./...); do
  dir=$(go list -f '{{.Dir}}' "$package")
  for target in $(grep -hoE '^func Fuzz[A-Za-z0-9_]+' "$dir"/*_test.go 2>/dev/null | sed 's/^func //'); do
    echo "$package $target"
    # By default the fuzzer shrinks each new input for up to a minute, and tries nothing else meanwhile.
    go test -run='^$' -fuzz="^$target\$" -fuzztime="$time" -fuzzminimizetime=5x "$package"
  done
done
