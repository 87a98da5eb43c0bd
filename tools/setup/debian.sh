#!/usr/bin/env bash
# Installs what the demo and the tests need and what a fresh Debian 12 with Go, git and make lacks: a C compiler, for the
# race detector only; when called with the word test, systemd-creds and a TPM in software, for the tests of keys that those
# keep; and when called with the word bench, what launches are compared with. Says what it would need elsewhere.
set -euo pipefail

missing=()
command -v cc >/dev/null || missing+=(gcc libc6-dev)
if [ "${1:-}" = test ]; then
  command -v systemd-creds >/dev/null || missing+=(systemd)
  command -v swtpm >/dev/null || missing+=(swtpm libtss2-tcti-swtpm0)
  command -v runc >/dev/null || missing+=(runc)
  command -v mkfs.ext4 >/dev/null || missing+=(e2fsprogs)
  [ -x /bin/busybox ] || missing+=(busybox-static)
  command -v tpm2_flushcontext >/dev/null || missing+=(tpm2-tools)
fi
if [ "${1:-}" = bench ]; then
  command -v busybox >/dev/null || missing+=(busybox-static)
  command -v runc >/dev/null || missing+=(runc)
fi
kernel=
if [ "${1:-}" = vm ]; then
  command -v qemu-system-x86_64 >/dev/null || missing+=(qemu-system-x86)
  command -v busybox >/dev/null || missing+=(busybox-static)
  command -v mkfs.ext4 >/dev/null || missing+=(e2fsprogs)
  command -v checkpolicy >/dev/null || missing+=(checkpolicy)
  compgen -G "$2/boot/vmlinuz-*" >/dev/null || kernel=linux-image-cloud-amd64
fi

if [ "${#missing[@]}" -eq 0 ] && [ -z "$kernel" ]; then
  exit 0
fi
if ! command -v apt-get >/dev/null; then
  echo "setup: install these with your package manager: ${missing[*]} $kernel" >&2
  exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "setup: ${missing[*]} must be installed: run this as root" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
if [ "${#missing[@]}" -gt 0 ]; then
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
if [ -n "$kernel" ]; then
  dir=$(mktemp -d)
  trap 'rm -rf "$dir"' EXIT
  image=$(apt-cache depends "$kernel" | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n1)
  (cd "$dir" && apt-get download -qq "$image" 2>/dev/null && dpkg -x "$image"*.deb kernel)
  rm -rf "$2"
  mkdir -p "$(dirname "$2")"
  cp -r "$dir/kernel" "$2"
fi
