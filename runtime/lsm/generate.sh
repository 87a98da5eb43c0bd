#!/bin/sh
# Compiles default.profile. APPARMOR_D is where AppArmor's abi files are, /etc/apparmor.d if it isn't set.
#
# The features are given, since else the parser asks the running kernel and leaves out what that does not have: on one without
# AppArmor every rule about mounts, signals and ptrace.
set -eu
dir=${APPARMOR_D:-/etc/apparmor.d}
apparmor_parser --skip-kernel-load --skip-cache --features-file="$dir/abi/3.0" --base "$dir" --stdout default.profile > default.bin.new
mv default.bin.new default.bin
