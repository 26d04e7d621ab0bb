# Makes the first stage of a virtual machine: it mounts the root file system and starts there what the kernel was told to.
# $1: the system; kernel and first stage are put into its /boot/EFI/nixos.
set -e
root=$1
stage="$root/stage"
boot="$root/boot/EFI/nixos"
mkdir -p "$boot" "$stage/bin" "$stage/dev" "$stage/proc" "$stage/sys" "$stage/root"
cp "$root/bin/busybox" "$stage/bin/"
# In the order in which they need each other.
modules="virtio_blk failover net_failover virtio_net virtio-rng nls_ascii nls_cp437 fat vfat"
for module in $modules; do
  file=$(find "$root/usr/lib/modules" -name "$module.ko.xz")
  [ -z "$file" ] || { xz -dc "$file" > "$stage/$module.ko"; echo "$module" >> "$stage/modules"; }
done
cat > "$stage/init" <<'END'
#!/bin/busybox sh
export PATH=/bin
busybox mount -t devtmpfs dev /dev
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
while read -r module; do busybox insmod "/$module.ko"; done < /modules
init=/sbin/init
for word in $(busybox cat /proc/cmdline); do
  case $word in init=*) init=${word#init=} ;; esac
done
until [ -b /dev/vda2 ]; do busybox sleep 0.1; done
busybox mount -t ext4 /dev/vda2 /root
[ -d /root/boot/grub ] || busybox mount -t vfat -o umask=0077 /dev/vda1 /root/boot
busybox mount -t tmpfs -o mode=755 tmpfs /root/run
for place in dev proc sys; do busybox mount --move /$place /root/$place; done
exec busybox switch_root /root "$init"
END
chmod 755 "$stage/init"
(cd "$stage" && find . | busybox cpio -o -H newc 2> /dev/null) > "$boot/initrd.efi"
cp "$root"/boot/vmlinuz-* "$boot/kernel.efi"
rm -rf "$stage" "$root"/boot/vmlinuz-* "$root"/boot/initrd.img-* "$root"/boot/System.map-* "$root"/boot/config-*
