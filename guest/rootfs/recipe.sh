# shellcheck shell=bash disable=SC2154
# Makes rootfs.ext4: stage 1 unpacks on the host, stage 2 configures inside the machine.

build_rootfs() {
    local hash kernel packages debs=() fakeroot=()
    build_kernel
    build_initramfs
    hash=$(hash_inputs "$guest_dir"/{doppel-run,wait-for-network,kernel,initramfs,rootfs})
    is_fresh rootfs "$hash" rootfs.ext4 && return
    mapfile -t packages < <(sed 's/#.*//' "$guest_dir/rootfs/packages" | xargs -n1)
    kernel=$(download "$(kernel_package)")
    # shellcheck disable=SC2016
    mapfile -t debs < <(resolve '?essential' "${packages[@]}")
    ((${#debs[@]})) || die "apt cannot install the packages of guest/rootfs/packages"
    download_all '?essential' "${packages[@]}"
    say "root file system, stage 1: unpacking ${#debs[@]} packages"
    ((EUID == 0)) || fakeroot=(fakeroot --)
    # One fakeroot session for all that cares about owners: it forgets them at its end.
    "${fakeroot[@]}" "$BASH" -c '. "$1/lib.sh"; . "$1/initramfs/recipe.sh"; . "$1/rootfs/recipe.sh"
        work=$2; shift 2; make_rootfs_image "$@"' \
        rootfs "$guest_dir" "$work" "$(find_mirror)" "$kernel" "${debs[@]}"
    run_stage2 "${#debs[@]}"
    publish rootfs.ext4
    set_stamp rootfs "$hash"
}

# make_rootfs_image MIRROR KERNEL-DEB DEB... : $work/rootfs.ext4, unpacked but not configured
make_rootfs_image() {
    local mirror=$1 kernel=$2 root=$work/rootfs release
    shift 2
    mkdir "$root"
    "$guest_dir/rootfs/stage1" "$root" "$@"
    cp -r --no-preserve=ownership "$guest_dir/rootfs/overlay/." "$root"
    install -m 755 "$guest_dir"/{doppel-run,wait-for-network} "$root/usr/local/sbin"
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' \
        "$mirror" "$guest_suite" "$keyring" >"$root/etc/apt/sources.list.d/debian.sources"

    # The kernel is not installed as a package, because its scripts would run depmod and update-initramfs
    # in the guest; its modules and the files to boot from are there all the same.
    say "adding the kernel and its modules"
    release=$(<"$cache_dir/kernel.release")
    mkdir -p "$work/kernel-modules"
    unpack_modules "$kernel" "$work/kernel-modules"
    mv "$work/kernel-modules/usr/lib/modules" "$root/usr/lib/modules"
    cp "$cache_dir/Image" "$root/boot/vmlinux-$release"
    cp "$cache_dir/initramfs.cpio.gz" "$root/boot/initrd.img-$release"
    # What U-Boot looks for on a disk.
    mkdir -p "$root/boot/extlinux"
    printf 'default debian\nlabel debian\n  linux /boot/vmlinux-%s\n  initrd /boot/initrd.img-%s\n  append %s\n' \
        "$release" "$release" 'root=LABEL=doppel-root console=ttyS0' >"$root/boot/extlinux/extlinux.conf"

    say "making the file system"
    # Nothing lazy: the guest's kernel would finish the inode tables at its own speed.
    PATH=$PATH:/sbin:/usr/sbin mkfs.ext4 -q -F -L doppel-root -d "$root" \
        -E lazy_itable_init=0,lazy_journal_init=0,nodiscard "$work/rootfs.ext4" 3G >&2
    add_partition_table "$work/rootfs.ext4"
    rm -rf "$root"
}

# add_partition_table IMAGE : declares the whole image its own bootable partition, from sector 0 on.
# U-Boot looks for extlinux.conf on partitions only, and ext4 leaves its first kilobyte, where a PC's
# boot record would be, to others; so the image is a file system and a partitioned disk at once.
add_partition_table() {
    local size_sectors=$(($(stat -c %s "$1") / 512)) size
    size=$(printf '\\x%02x\\x%02x\\x%02x\\x%02x' $((size_sectors & 255)) $((size_sectors >> 8 & 255)) \
        $((size_sectors >> 16 & 255)) $((size_sectors >> 24 & 255)))
    # One entry: active, no cylinders, type Linux, first sector 0; then the record's signature.
    printf '\x80\xfe\xff\xff\x83\xfe\xff\xff\0\0\0\0%b' "$size" |
        dd of="$1" bs=1 seek=446 conv=notrunc status=none
    printf '\x55\xaa' | dd of="$1" bs=1 seek=510 conv=notrunc status=none
}

# run_stage2 PACKAGE-COUNT
run_stage2() {
    local log=$cache_dir/stage2.log marker count=0
    say "root file system, stage 2: configuring the packages inside the machine (log: $log)"
    run_machine "$work/rootfs.ext4" \
        'console=ttyS0 quiet doppel.rescue=no root=/dev/vda rw init=/usr/local/sbin/doppel-stage2' \
        </dev/null 2>&1 | tee "$log" | while read -r line; do
        case $line in
        'Setting up '*)
            count=$((count + 1))
            progress "$count" "$1" "configuring packages"
            ;;
        esac
    done || true
    marker=$(PATH=$PATH:/sbin:/usr/sbin debugfs -R 'cat /etc/doppel-guest' "$work/rootfs.ext4" 2>/dev/null)
    if [[ -z $marker ]]; then
        tail -n 20 "$log" >&2
        die "stage 2 did not finish; the log is $log"
    fi
}

# run_machine DISK APPEND : boots the default kernel and initramfs with a disk. GUEST_VM replaces Doppel
# by a command that is called with the kernel, the initramfs, the disk and the kernel command line.
run_machine() {
    local image=$cache_dir/Image initrd=$cache_dir/initramfs.cpio.gz doppel=${DOPPEL:-$guest_dir/../build/doppel}
    if [[ -n ${GUEST_VM:-} ]]; then
        "$GUEST_VM" "$image" "$initrd" "$1" "$2"
    else
        [[ -x $doppel ]] || die "$doppel is missing; run make first"
        "$doppel" boot --timeout 3600 --harts 1 --memory 1G --kernel "$image" --initrd "$initrd" --disk "$1" --append "$2" \
            --net none
    fi
}
