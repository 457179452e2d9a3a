# shellcheck shell=bash disable=SC2154
# Makes initramfs.cpio.gz: busybox, the modules that a Doppel machine needs and /init.

build_initramfs() {
    local kernel busybox base hash root=$work/initramfs tree=$work/modules release
    hash=$(hash_inputs "$guest_dir"/{doppel-run,wait-for-network,initramfs,kernel})
    is_fresh initramfs "$hash" initramfs.cpio.gz && return
    kernel=$(download "$(kernel_package)")
    busybox=$(download busybox-static)
    base=$(download base-files)
    say "making the initramfs"

    mkdir -p "$root"/{bin,sbin,dev,proc,sys,run,tmp,root,mnt,newroot,etc/udhcpc,usr/bin,usr/sbin,usr/share/udhcpc} \
        "$root/usr/lib/modules"
    ln -s usr/lib "$root/lib"
    dpkg-deb --fsys-tarfile "$busybox" | tar -x -C "$root" --strip-components=3 ./usr/bin/busybox
    mv "$root/busybox" "$root/bin/busybox"
    dpkg-deb --fsys-tarfile "$base" | tar -x -C "$root" ./usr/lib/os-release ./etc/os-release ./etc/debian_version
    ln -s busybox "$root/bin/sh"
    ln -s ../bin/busybox "$root/sbin/modprobe"
    install -m 755 "$guest_dir/initramfs/init" "$root/init"
    install -m 755 "$guest_dir"/{doppel-run,wait-for-network} "$root/sbin"
    install -m 755 "$guest_dir/initramfs/udhcpc.script" "$root/etc/udhcpc/default.script"
    echo 'root::0:0:root:/root:/bin/sh' >"$root/etc/passwd"
    echo 'root:x:0:' >"$root/etc/group"
    echo doppel >"$root/etc/hostname"
    printf '127.0.0.1 localhost doppel\n' >"$root/etc/hosts"

    unpack_modules "$kernel" "$tree"
    release=$(basename "$tree"/usr/lib/modules/*)
    # shellcheck disable=SC2046
    copy_modules "$tree" "$root" "$release" .ko $(module_names boot)
    # shellcheck disable=SC2046
    copy_modules "$tree" "$root" "$release" .ko.xz $(module_names demand)
    cp "$tree/lib/modules/$release/modules.builtin" "$root/lib/modules/$release"

    (cd "$root" && find . -print0 | LC_ALL=C sort -z | cpio --null -o -H newc -R 0:0 --quiet | gzip -n -9) \
        >"$work/initramfs.cpio.gz"
    publish initramfs.cpio.gz
    set_stamp initramfs "$hash"
}

# unpack_modules DEB FOLDER : the whole module tree with its dependencies computed
unpack_modules() {
    mkdir -p "$2"
    dpkg-deb --fsys-tarfile "$1" | tar -x -C "$2" ./usr/lib/modules
    ln -s usr/lib "$2/lib"
    PATH=$PATH:/sbin:/usr/sbin depmod -b "$2" "$(basename "$2"/usr/lib/modules/*)"
}

# module_names boot|demand : the names that initramfs/modules lists for this moment
module_names() { sed -n "s/^$1 //p" "$guest_dir/initramfs/modules"; }

# copy_modules TREE ROOT RELEASE SUFFIX NAME... : NAMEs and what they need, from TREE to ROOT with their
# lines of modules.dep; decompressed if SUFFIX is .ko, as Debian ships them if it is .ko.xz
copy_modules() {
    local tree=$1 root=$2 release=$3 suffix=$4 name path target
    local PATH=$PATH:/sbin:/usr/sbin
    local folder=$root/lib/modules/$release
    shift 4
    mkdir -p "$folder"
    for name in "$@"; do
        modprobe -d "$tree" -S "$release" --show-depends "$name" || die "the kernel has no module $name"
    done >"$work/insmod"
    awk '$1 == "insmod" { print $2 }' "$work/insmod" | sort -u | while read -r path; do
        path=${path#"$tree/lib/modules/$release/"}
        target=${path%.ko.xz}
        # An earlier call may have copied it already, for another module that needs it.
        grep -q "^$target\.ko" "$folder/modules.dep" 2>/dev/null && continue
        mkdir -p "$folder/$(dirname "$path")"
        if [[ $suffix == .ko ]]; then
            xz -dc "$tree/lib/modules/$release/$path" >"$folder/$target.ko"
        else
            cp "$tree/lib/modules/$release/$path" "$folder/$path"
        fi
        grep "^$target\.ko" "$tree/lib/modules/$release/modules.dep" >>"$folder/modules.dep"
    done
    # modules.dep names every file as it is stored; modules.alias is how the kernel asks for "fs-ext4" or
    # "crypto-crc32c".
    : >"$folder/modules.alias"
    find "$folder" -name '*.ko*' -printf '%P\n' | while read -r path; do
        name=$(basename "${path%%.ko*}")
        printf 's|%s\.ko(\.xz)?|%s|g\n' "${path%%.ko*}" "$path"
        awk -v name="${name//-/_}" '$3 == name' "$tree/lib/modules/$release/modules.alias" >>"$folder/modules.alias"
    done >"$work/rename.sed"
    sed -E -i -f "$work/rename.sed" "$folder/modules.dep"
}
