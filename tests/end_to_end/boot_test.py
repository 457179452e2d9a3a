#!/usr/bin/env python3
"""Debian's kernel, firmware and boot loader, to the first program of the initramfs."""
import hashlib

import harness
from harness import image

OPENSBI = ("--firmware", image("fw_dynamic.bin"))
# The finished root file system, which has a kernel; never written here.
ROOT_DISK = ("--disk", image("rootfs.ext4") + ",readonly")


class Boot(harness.EndToEnd):
    def boots(self, harts, *options):
        """All harts come online, and a power-off ends Doppel with 0."""
        machine = self.boot_to_run("uname -m; grep -c ^processor /proc/cpuinfo; echo online $(nproc); "
                                   "cat /sys/devices/system/cpu/online; dmesg",
                                   "--harts", str(harts), *options)
        console = self.finished(machine)
        online = "0" if harts == 1 else f"0-{harts - 1}"
        self.assertIn(f"riscv64\n{harts}\nonline {harts}\n{online}\n", console)
        for trouble in ("cannot load", "BUG:", "WARNING:", "Oops", "detected stalls"):
            self.assertNotIn(trouble, console)
        return console

    def test_1_hart(self):
        self.boots(1)

    def test_2_harts(self):
        self.boots(2)

    def test_4_harts(self):
        self.boots(4)

    def test_64_harts(self):
        self.boots(64)

    def test_opensbi_1_hart(self):
        self.assertIn("OpenSBI v", self.boots(1, *OPENSBI))

    def test_opensbi_2_harts(self):
        self.assertIn("OpenSBI v", self.boots(2, *OPENSBI))

    def u_boot(self, *options):
        """U-Boot's prompt, and from there to the kernel that is on the disk."""
        machine = self.boot(*options, *ROOT_DISK)
        machine.expect("U-Boot 20")
        machine.expect("Hit any key to stop autoboot")
        machine.send(" ")
        machine.expect("=> ")
        machine.send("echo harts: ${boot_hartid} && virtio info\n")
        machine.expect("Type: Hard Disk")
        machine.expect("=> ")
        machine.send("boot\n")
        machine.expect(r"Found /boot/extlinux/extlinux\.conf")
        machine.expect("Starting kernel")
        machine.expect("Linux version .*Debian")
        machine.expect("Kernel command line: root=LABEL=doppel-root console=ttyS0")

    def test_u_boot(self):
        self.u_boot("--harts", "1", "--kernel", image("u-boot.elf"))

    def test_u_boot_on_opensbi(self):
        self.u_boot(*OPENSBI, "--kernel", image("u-boot.bin"))

    def test_exit_status_is_the_guests(self):
        self.finished(self.boot_to_run("exit 7", "--harts", "1"), status=7)

    def test_network(self):
        """A download from the host's loopback through the gateway, and one by the host from the guest."""
        payload = self.payload(3_000_000)
        outside, inside = self.serve_folder(), harness.free_port()
        machine = self.boot_to_run(
            f"wait-for-network; wget -q -O /payload http://10.0.2.2:{outside}/payload; sha256sum /payload; "
            "echo serving; httpd -f -p 80 -h /", "--net", f"user,forward=tcp:{inside}:80")
        machine.expect(hashlib.sha256(payload).hexdigest())
        machine.expect("serving")
        self.assertEqual(harness.download(inside, "payload"), payload)


harness.main()
