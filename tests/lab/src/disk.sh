# Makes the disk of a virtual machine: an EFI system partition and the root file system.
# $1: the installed system; $2: its boot loader, "systemd-boot" or "grub"; $3: a directory for what is made: `disk` in the end.
set -e
root=$1 loader=$2 out=$3
esp_start=1 esp_size=64 root_size=2560 # MiB
export MTOOLS_SKIP_CHECK=1
mkdir -p "$out"

esp="$out/esp"
truncate -s ${esp_size}M "$esp"
mkfs.vfat "$esp" > /dev/null
place() { mcopy -o -i "$esp" "$1" "::$2"; }
mmd -i "$esp" ::EFI ::EFI/BOOT
if [ "$loader" = grub ]; then
  # GRUB's own program looks for its configuration where Debian has it.
  mmd -i "$esp" ::EFI/debian
  place "$root/usr/lib/grub/x86_64-efi/monolithic/grubx64.efi" EFI/BOOT/BOOTX64.EFI
  printf 'search --set=root --label root\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n' > "$out/grub.cfg"
  place "$out/grub.cfg" EFI/debian/grub.cfg
else
  place "$root/usr/lib/systemd/boot/efi/systemd-bootx64.efi" EFI/BOOT/BOOTX64.EFI
  # The partition is what the first stage mounts at /boot.
  mmd -i "$esp" ::EFI/nixos
  for file in "$root"/boot/EFI/nixos/*; do place "$file" EFI/nixos/; done
  mcopy -s -i "$esp" "$root/boot/loader" ::
  place "$root/boot/default-system" default-system
  find "$root/boot" -mindepth 1 -delete
fi

disk="$out/disk.new"
truncate -s $((esp_start + esp_size + root_size + 1))M "$disk"
sfdisk --quiet "$disk" <<END
label: gpt
start=${esp_start}MiB, size=${esp_size}MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B
start=$((esp_start + esp_size))MiB, size=${root_size}MiB, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4
END

dd if="$esp" of="$disk" bs=1M seek=$esp_start conv=notrunc,sparse status=none
mke2fs -q -t ext4 -L root -d "$root" -E offset=$(((esp_start + esp_size) << 20)) "$disk" ${root_size}M
rm -f "$esp" "$out/grub.cfg"
mv "$disk" "$out/disk"
