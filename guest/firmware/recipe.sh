# shellcheck shell=bash disable=SC2154
# Takes OpenSBI and U-Boot from their packages.

build_firmware() {
    local opensbi uboot hash
    hash=$(hash_inputs "$guest_dir/firmware")
    is_fresh firmware "$hash" fw_dynamic.bin fw_dynamic.elf fw_jump.bin fw_jump.elf u-boot.bin u-boot.elf && return
    opensbi=$(download opensbi)
    uboot=$(download u-boot-qemu)
    say "unpacking OpenSBI and U-Boot"
    dpkg-deb --fsys-tarfile "$opensbi" |
        tar -x -C "$work" --strip-components=6 --wildcards './usr/lib/riscv64-linux-gnu/opensbi/generic/fw_*'
    # The S-mode build: it runs on top of an SBI, OpenSBI's or Doppel's own.
    dpkg-deb --fsys-tarfile "$uboot" |
        tar -x -C "$work" --strip-components=5 ./usr/lib/u-boot/qemu-riscv64_smode
    mv "$work/uboot.elf" "$work/u-boot.elf"
    publish fw_dynamic.bin fw_dynamic.elf fw_jump.bin fw_jump.elf u-boot.bin u-boot.elf
    set_stamp firmware "$hash"
}
