#!/bin/sh
# Hold a loop device, and the file system on it, until standard input gives a line or ends; then take both down, whatever happened.
#
#   loop_device.sh FOLDER SIZE_MIB SECTOR_SIZE none|xfs
#
# Makes FOLDER/image (sparse, in memory: nothing here has to survive, and each fsync to a real disk takes milliseconds), attaches it and, with xfs, formats it with reflink and mounts it on FOLDER/mnt. Then
# prints the device's path, one line. The tests hold the other end of standard input: a pipe closes even when they are
# killed. Exit status 3: something still used the mount, which was detached from the tree and goes with its last user.
set -eu

folder=$1 size_mib=$2 sector_size=$3 kind=$4
device='' busy=0

release() {
    status=$?
    set +e
    trap '' EXIT
    if mountpoint -q "$folder/mnt"; then
        fsfreeze --unfreeze "$folder/mnt" 2>/dev/null
        for _ in 1 2 3 4 5 6 7 8 9 10; do
            umount "$folder/mnt" 2>/dev/null && break
            sleep 0.2
        done
        if mountpoint -q "$folder/mnt"; then
            umount -l "$folder/mnt"
            busy=1
        fi
    fi
    [ -z "$device" ] || losetup --detach "$device"
    mountpoint -q "$folder" && umount -l "$folder" # lazily: the loop device may have it until its last user ends
    rm -rf --one-file-system "$folder"
    [ "$busy" = 0 ] || exit 3
    exit "$status"
}
# An interrupt on the terminal goes to the tests; they end the pipe.
trap '' INT TERM HUP
trap release EXIT

mount -t tmpfs -o "size=$((size_mib + 16))m,mode=700" pvedrbdstor-test "$folder"
truncate -s "${size_mib}M" "$folder/image"
device=$(losetup --find --show --sector-size "$sector_size" "$folder/image")
if [ "$kind" = xfs ]; then
    mkfs.xfs -q -m reflink=1 "$device"
    mkdir "$folder/mnt"
    mount -t xfs "$device" "$folder/mnt"
fi
echo "$device"
# A line or the end: a process forked by the tests may outlive them and keep the pipe open.
read -r _ || :
