#!/usr/bin/env python3
"""How a machine behaves towards its host: idleness, endings, disks in trouble."""
import re
import signal
import subprocess
import termios

import harness

PROMPT = "/ # "


class Behaviour(harness.EndToEnd):
    def assert_idle(self, machine):
        """Comes to rest: under 3 % of a host core over 12 seconds.

        The guest has something left to do after its boot, DHCP for one, and a virtual host charges a thread for what
        others took from it meanwhile. So the machine has a minute; one that polls does not rest in any.
        """
        shares = []
        share = 1
        while share >= 0.03 and len(shares) < 30:
            shares.append(machine.busy_share(seconds=2))
            if len(shares) >= 6:
                share = sum(shares[-6:]) / 6
        spread = " ".join(f"{share:.1%}" for share in shares)
        print(f"idle: {spread} of a core")
        self.assertLess(share, 0.03, spread)

    def test_idle_at_the_shell(self):
        machine = self.boot(terminal=True)
        machine.expect(PROMPT)
        self.assert_idle(machine)

    def test_without_standard_input(self):
        machine = self.boot(stdin=subprocess.DEVNULL)
        machine.expect(PROMPT)
        self.assert_idle(machine)

    def test_leaving_the_terminal(self):
        machine = self.boot(terminal=True)
        machine.expect(PROMPT)
        self.assertFalse(termios.tcgetattr(machine.terminal)[3] & termios.ICANON)
        self.assertEqual(machine.shell("tty"), "/dev/ttyS0")
        machine.send("\x01h")
        machine.expect("Ctrl-A X +leave")
        machine.send("\x01x")
        self.finished(machine)
        self.assertTrue(termios.tcgetattr(machine.terminal)[3] & termios.ICANON)

    def test_time_out(self):
        machine = self.boot_to_run("sleep 600", "--timeout", "3")
        self.finished(machine, status=124, seconds=60)

    def test_reboot(self):
        machine = self.boot_to_run("echo up since $(cut -d. -f1 /proc/uptime); reboot -f")
        for _ in range(2):
            machine.expect("up since [0-9]+$")
        machine.process.terminate()
        self.finished(machine, status=128 + signal.SIGTERM)

    def test_terminated_while_writing(self):
        """What the guest's file system relied on is on the disk. Meanwhile the disk has one writer."""
        disk = self.new_disk(128 << 20)
        self.tool("mkfs.ext4", "-q", disk)
        machine = self.boot_to_run(
            "modprobe ext4; mkdir /disk; mount -t ext4 /dev/vda /disk; "
            "for i in $(seq 1 20); do echo $i >/disk/early$i; done; sync; echo written; "
            "i=0; while :; do i=$((i+1)); mkdir -p /disk/$((i%9)); "
            "dd if=/dev/zero of=/disk/$((i%9))/$i bs=64k count=8 2>/dev/null; rm -f /disk/$(((i-60)%9))/$((i-60)); "
            "[ $((i%20)) = 0 ] && echo writing $i; done", "--disk", disk)
        machine.expect("written")
        machine.expect("writing")

        second = self.boot_to_run("true", "--disk", disk)
        self.assertRegex(self.finished(second, status=2), r"^doppel: .*disk.*in use")

        machine.expect("writing")
        machine.process.terminate()
        self.finished(machine, status=128 + signal.SIGTERM, seconds=60)
        self.tool("e2fsck", "-p", disk, statuses=(0, 1))  # replays the journal, and refuses more than that
        self.tool("e2fsck", "-fn", disk)
        self.assertIn("20", self.tool("debugfs", "-R", "cat /early20", disk))

    def test_full_host_disk(self):
        """The guest sees an I/O error, and reads back all that was acknowledged before."""
        mount = 'mount -t tmpfs -o size=16M tmpfs "$0" && truncate -s 64M "$0"/disk && exec "$@"'
        namespace = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
        if subprocess.run([*namespace, mount, self.folder, "true"]).returncode != 0:
            self.skipTest("no small file system may be mounted here")
        machine = self.boot_to_run(
            "dd if=/dev/urandom of=/block bs=1M count=1 2>/dev/null; i=0; "
            "while dd if=/block of=/dev/vda bs=1M seek=$i count=1 oflag=direct; do i=$((i+1)); done; "
            "echo acknowledged $i; echo 3 >/proc/sys/vm/drop_caches; j=0; "
            "while [ $j -lt $i ]; do dd if=/dev/vda bs=1M skip=$j count=1 iflag=direct 2>/dev/null | cmp - /block && "
            "j=$((j+1)) || break; done; echo intact $j", "--disk", str(self.folder / "disk"),
            wrapper=[*namespace, mount, str(self.folder)])
        console = self.finished(machine)
        self.assertRegex(console, "dd: .*(I/O|Input/output) error")
        acknowledged, intact = (int(re.search(f"{name} ([0-9]+)", console)[1]) for name in ("acknowledged", "intact"))
        self.assertIn(acknowledged, range(8, 17))
        self.assertEqual(intact, acknowledged)


harness.main()
