#!/bin/sh
# Runs a program as a container would with --read-only, --cap-drop ALL,
# no-new-privileges and --user, without a container engine:
#
#   unshare --mount --pid --fork --kill-child sh box.sh ROOT DATA UID:GID PROGRAM...
#
# ROOT holds what the image has, and empty places for what is mounted here. The
# network is the machine's.
set -eu
root=$1 data=$2 user=$3
shift 3
mount --bind "$root" "$root" # a mount of its own can be read-only
mount -t tmpfs -o mode=1777,size=16m,nosuid,nodev,noexec tmpfs "$root/tmp"
if [ "$data" != none ]; then mount --bind "$data" "$root/data"; fi
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
for device in null zero random urandom; do mount --bind "/dev/$device" "$root/dev/$device"; done
mount -t tmpfs -o mode=1777,size=64m,nosuid,nodev,noexec shm "$root/dev/shm" # every engine gives one
mount -o remount,bind,ro "$root"
exec chroot "$root" /usr/local/bin/setpriv --reuid "${user%:*}" --regid "${user#*:}" --clear-groups \
  --bounding-set=-all --inh-caps=-all --ambient-caps=-all --no-new-privs --pdeathsig KILL "$@"
