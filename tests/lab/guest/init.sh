#!/bin/sh
# Runs first in a node: loads the modules, lays a tmpfs over the host's / (read-only), hands over to the agent.
# From the kernel's command line: LAB_KIND (uml, kvm, tcg or a probe), LAB_NODE, LAB_IP, LAB_SHARE, LAB_MODULES,
# LAB_CHECKOUT, LAB_AGENT, LAB_FIRST. Not "set -e": a step that fails says so on the console and the agent never answers.
/bin/busybox mkdir -p /bin /sbin /usr/bin /usr/sbin
/bin/busybox --install -s
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
while read -r module; do
	insmod "/mod/$module" || echo "LAB: insmod $module failed"
done </mod/order
# The values are paths and names of the lab's own making, without blanks.
read -r command_line </proc/cmdline
for word in $command_line; do
	case $word in LAB_*) export "${word?}" ;; esac
done
if [ "$LAB_KIND" = kvm-probe ]; then
	echo LAB-PROBE-OK
	poweroff -f
fi
if [ "$LAB_KIND" = probe ]; then
	mount -t hostfs none /ro -o / && [ -x /ro/bin/sh ] && chroot /ro /bin/sh -c 'echo LAB-PROBE-OK'
	poweroff -f
fi

host() { # host FOLDER-OF-THE-HOST MOUNT-POINT 9P-TAG ro|rw 9P-CACHING
	if [ "$LAB_KIND" = uml ]; then
		mount -t hostfs none "$2" -o "$4,$1"
	else
		mount -t 9p -o "trans=virtio,version=9p2000.L,msize=512000,cache=$5,$4" "$3" "$2"
	fi
}
host / /ro hostroot ro loose
mount -t tmpfs tmpfs /rw
mkdir /rw/upper /rw/work
mount -t overlay -o lowerdir=/ro,upperdir=/rw/upper,workdir=/rw/work overlay /newroot
rm -rf /newroot/var/lib/pvedrbdstor # records of the host's are none of this node
mkdir -p "/newroot/lib/modules/$(uname -r)" /newroot/etc/pve /newroot/mnt
mount --bind "/ro$LAB_MODULES" "/newroot/lib/modules/$(uname -r)"
for folder in tmp run mnt var/tmp; do
	mount -t tmpfs -o mode=1777 tmpfs "/newroot/$folder"
done
mkdir -p /newroot/run/lab /newroot/run/lock
host "$LAB_SHARE" /newroot/run/lab share rw none
mount --move /proc /newroot/proc
mount --move /sys /newroot/sys
mount --move /dev /newroot/dev
mkdir -p /newroot/dev/pts /newroot/dev/shm
mount -t devpts devpts /newroot/dev/pts
mount -t tmpfs tmpfs /newroot/dev/shm
# The checkout, wherever it lies (also in a folder that was just covered), directly and read-only.
mkdir -p "/newroot$LAB_CHECKOUT"
mount --bind "/ro$LAB_CHECKOUT" "/newroot$LAB_CHECKOUT"

hostname "$LAB_NODE"
echo "$LAB_NODE" >/newroot/etc/hostname
printf '127.0.0.1 localhost\n10.77.0.1 nodea\n10.77.0.2 nodeb\n10.77.0.3 nodec\n' >/newroot/etc/hosts
ifconfig lo 127.0.0.1 up
for interface in /newroot/sys/class/net/*; do
	name=${interface##*/}
	[ "$name" = lo ] || ifconfig "$name" "$LAB_IP" netmask 255.255.255.0 up
done
if [ "$LAB_KIND" = uml ]; then
	port=/dev/ttyS0
else
	set -- /newroot/dev/vport*p1
	port=${1#/newroot}
fi
if [ "$LAB_FIRST" = systemd ]; then
	# Nothing of what the host has enabled: a target of the lab's own, and what its units want.
	units=/newroot/run/systemd/system
	mkdir -p "$units"
	printf '[Unit]\nDescription=A node of the lab\nDefaultDependencies=no\nWants=lab-agent.service\n' >"$units/lab.target"
	{
		printf '[Unit]\nDescription=The lab agent\nDefaultDependencies=no\n[Service]\nKillMode=process\n'
		# As systemd itself does on a machine; it takes this one, whose root is no disk, for a container.
		printf 'ExecStartPre=/bin/mount --make-rshared /\n'
		printf 'ExecStart=/usr/bin/python3 -I -S %s %s /run/lab\n' "$LAB_AGENT" "$port"
	} >"$units/lab-agent.service"
	: >/newroot/etc/fstab
	exec switch_root /newroot /lib/systemd/systemd --unit=lab.target
fi
exec switch_root /newroot /usr/bin/python3 -I -S "$LAB_AGENT" "$port" /run/lab
