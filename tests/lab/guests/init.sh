#!/bin/busybox sh
# shellcheck shell=dash
# Runs first in a real guest: loads the modules, then counts on its disk for as long as it lives.
busybox() {
	/bin/busybox "$@"
}
busybox mount -t devtmpfs dev /dev
while read -r module; do
	busybox insmod "/mod/$module"
done </mod/order
until [ -b /dev/vda ]; do
	busybox usleep 20000
done
exec /bin/counter /dev/vda
