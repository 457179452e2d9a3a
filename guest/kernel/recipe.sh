# shellcheck shell=bash disable=SC2154
# Makes Image, kernel.release and kernel.config from Debian's kernel package.

# The kernel package that the meta package linux-image-riscv64 stands for.
kernel_package() {
    private_apt apt-cache show --no-all-versions "linux-image-$guest_arch" |
        sed -n 's/^Depends: \(linux-image-[^ ,]*\).*/\1/p'
}

build_kernel() {
    local deb hash release
    hash=$(hash_inputs "$guest_dir/kernel")
    is_fresh kernel "$hash" Image kernel.release kernel.config && return
    deb=$(download "$(kernel_package)")
    say "unpacking the kernel"
    dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$work" --wildcards './boot/*'
    # Debian's vmlinux for riscv64 is the plain Image: its magic "RSC\x05" stands at offset 56.
    release=$(cd "$work/boot" && echo vmlinux-*)
    [[ $(tail -c +57 "$work/boot/$release" | head -c 3) == RSC ]] || die "$release in $deb is no RISC-V Image"
    mv "$work/boot/$release" "$work/Image"
    mv "$work/boot/config-${release#vmlinux-}" "$work/kernel.config"
    printf '%s\n' "${release#vmlinux-}" >"$work/kernel.release"
    publish Image kernel.config kernel.release
    set_stamp kernel "$hash"
}
