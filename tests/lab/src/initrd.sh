# Makes the first stage of a virtual machine: it mounts the root file system and starts there what the kernel was told to.
# $1: the system; kernel and first stage are put into its /boot/EFI/nixos.
set -e
root=$1
stage="$root/stage"
boot="$root/boot/EFI/nixos"
mkdir -p "$boot" "$stage/bin" "$stage/dev" "$stage/proc" "$stage/sys" "$stage/root"
cp "$root/bin/busybox" "$stage/bin/"
xz -dc "$root"/usr/lib/modules/*/kernel/drivers/block/virtio_blk.ko.xz > "$stage/virtio_blk.ko"
cat > "$stage/init" <<'END'
#!/bin/busybox sh
export PATH=/bin
busybox mount -t devtmpfs dev /dev
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox insmod /virtio_blk.ko
init=/sbin/init
for word in $(busybox cat /proc/cmdline); do
  case $word in init=*) init=${word#init=} ;; esac
done
until [ -b /dev/vda2 ]; do busybox sleep 0.1; done
busybox mount -t ext4 /dev/vda2 /root
busybox mount -t tmpfs -o mode=755 tmpfs /root/run
for place in dev proc sys; do busybox mount --move /$place /root/$place; done
exec busybox switch_root /root "$init"
END
chmod 755 "$stage/init"
(cd "$stage" && find . | busybox cpio -o -H newc 2> /dev/null) > "$boot/initrd.efi"
cp "$root"/boot/vmlinuz-* "$boot/kernel.efi"
rm -rf "$stage" "$root"/boot/vmlinuz-* "$root"/boot/initrd.img-* "$root"/boot/System.map-* "$root"/boot/config-*
