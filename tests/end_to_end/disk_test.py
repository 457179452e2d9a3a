#!/usr/bin/env python3
"""A whole Debian on a disk: its programs, its network, and what it remembers."""
import hashlib

import harness
from harness import image

HELLO_C = r"""#include <math.h>
#include <stdio.h>
int main(int argc, char** argv) { return printf("sum %.3f\n", 41 + sqrt(argc)) < 0; }
"""


class Disk(harness.EndToEnd):
    def log_in(self, machine):
        machine.expect("doppel login: ")
        machine.send("root\n")
        machine.expect("root@doppel:~# ")
        machine.send("exec sh\n")  # one that does not edit the line

    def test_debian(self):
        disk = str(self.folder / "rootfs.ext4")
        self.tool("cp", "--sparse=always", "--reflink=auto", image("rootfs.ext4"), disk)
        inside = harness.free_port()
        machine = self.boot(*harness.DEFAULT_GUEST, "--disk", disk, "--append",
                            "console=ttyS0 quiet root=LABEL=doppel-root", "--net", f"user,forward=tcp:{inside}:80")
        self.log_in(machine)

        self.assertEqual(machine.shell("systemctl --failed --no-legend --no-pager"), "")
        self.assertRegex(machine.shell("apt-get --version"), "^apt [0-9.]+ .*riscv64")

        payload = self.payload(4_000_000)
        (self.folder / "hello.c").write_text(HELLO_C)
        outside = f"http://10.0.2.2:{self.serve_folder()}"
        machine.shell(f"wget -q {outside}/payload {outside}/hello.c")
        self.assertIn(hashlib.sha256(payload).hexdigest(), machine.shell("sha256sum payload"))
        machine.shell("(python3 -m http.server 80 >/dev/null 2>&1 &)")
        self.assertEqual(harness.download(inside, "payload"), payload)

        self.assertEqual(machine.shell("gcc -O1 -o hello hello.c -lm && ./hello"), "sum 42.000")
        self.assertEqual(machine.shell("python3 -c 'import json; print(json.dumps([2 ** 100, 0.1 + 0.2]))'"),
                         "[1267650600228229401496703205376, 0.30000000000000004]")

        machine.shell("echo remembered >note; sync")
        machine.send("poweroff\n")
        self.finished(machine)
        self.tool("e2fsck", "-fn", disk)

        again = self.boot("--disk", disk)  # by U-Boot this time
        self.log_in(again)
        self.assertEqual(again.shell("cat note"), "remembered")
        self.assertIn(hashlib.sha256(payload).hexdigest(), again.shell("sha256sum payload"))
        again.send("poweroff\n")
        self.finished(again)


harness.main()
