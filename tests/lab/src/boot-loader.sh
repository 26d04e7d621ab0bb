#!/bin/sh
# Prints the system that is to be booted. Where the host has GRUB's files it does what GRUB does with them, which itself needs a machine
# of its own: the entry for one boot is forgotten before it is started.
[ -e /boot/grub/grub.cfg ] || exec cat /boot/default-system
wanted=$(sed -n 's/^next_entry=//p' /boot/grub/grubenv 2>/dev/null)
[ -z "$wanted" ] || sed -i 's/^next_entry=.*/next_entry=/' /boot/grub/grubenv
exec awk -v wanted="${wanted:-0}" '
  /^submenu/ { above = ++top - 1 ">"; inner = 0 }
  /^menuentry/ { place = above == "" ? top++ : above inner++; inside = 1 }
  /^}/ { if (inside) inside = 0; else above = "" }
  place == wanted && sub(/.*init=/, "") { sub(/\/init.*/, ""); print; exit }
' /boot/grub/grub.cfg
