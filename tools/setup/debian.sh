#!/usr/bin/env bash
# Installs what the demo and the tests need and what a fresh Debian 12 with Go, git and make lacks: a C compiler, for the
# race detector only. Says what it would need elsewhere.
set -euo pipefail

missing=()
command -v cc >/dev/null || missing+=(gcc libc6-dev)

if [ "${#missing[@]}" -eq 0 ]; then
  exit 0
fi
if ! command -v apt-get >/dev/null; then
  echo "setup: install these with your package manager: ${missing[*]}" >&2
  exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "setup: ${missing[*]} must be installed: run this as root" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
