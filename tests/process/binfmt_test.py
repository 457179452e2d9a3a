#!/usr/bin/env python3
"""Has the kernel run riscv64 programs by Doppel, in a user namespace of its own, so that the host notices nothing.

Usage: binfmt_test.py DOPPEL
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

DOPPEL = sys.argv.pop(1)
SANITIZED = b"__asan_init" in pathlib.Path(DOPPEL).read_bytes()
COMPILER = "riscv64-linux-gnu-gcc"
SOURCE = r"""
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(int count, char** arguments) {
  printf("%s %d\n", arguments[0], count);
  fflush(stdout);
  if (count > 1 && strcmp(arguments[1], "again") == 0) execl("/bin/program", "second", NULL);
  return 4;
}
"""


@unittest.skipUnless(shutil.which(COMPILER), f"no {COMPILER}")
class Binfmt(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def inside(self, script):
        """Runs it as root of a namespace where nothing is registered."""
        mount = "mount -t binfmt_misc none /proc/sys/fs/binfmt_misc 2>/dev/null || exit 99\n"
        result = subprocess.run(["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount + script],
                                capture_output=True, text=True, timeout=60)
        if result.returncode == 99 or result.stderr.startswith("unshare"):
            self.skipTest("binfmt_misc cannot be mounted in a namespace here")
        return result

    def test_registers(self):
        result = self.inside(f"""
            {DOPPEL} binfmt status --json
            {DOPPEL} binfmt install && {DOPPEL} binfmt install && {DOPPEL} binfmt status --json
            cat /proc/sys/fs/binfmt_misc/doppel-riscv64
            {DOPPEL} binfmt remove && {DOPPEL} binfmt remove && {DOPPEL} binfmt status
        """)
        before, after, *entry, last = result.stdout.splitlines()
        self.assertFalse(json.loads(before)["registered"])
        status = json.loads(after)
        self.assertEqual((status["registered"], status["enabled"], status["interpreter"], status["flags"]),
                         (True, True, os.path.realpath(DOPPEL), "POCF"))
        self.assertIn("magic 7f454c460201010000000000000000000200f300", entry)
        self.assertIn("mask ffffffffffffff00fffffffffffffffffeffffff", entry)
        self.assertEqual(last, "riscv64 programs are not registered")

    @unittest.skipIf(SANITIZED, "linked dynamically, it cannot start itself where its libraries are not")
    def test_runs(self):
        """Also in a root without anything else, which has not even /proc."""
        root = self.folder / "root"
        (root / "bin").mkdir(parents=True)
        (self.folder / "source.c").write_text(SOURCE)
        subprocess.run([COMPILER, "-static", self.folder / "source.c", "-o", root / "bin/program"], check=True)
        (root / "bin/script").write_text("#!/bin/program again\n")
        (root / "bin/script").chmod(0o755)
        result = self.inside(f"""
            {DOPPEL} binfmt install
            cd {root}/bin && ./program 1 2; echo $?
            chroot {root} /bin/program again; echo $?
            chroot {root} /bin/script; echo $?
        """)
        self.assertEqual(result.stdout.split("\n"),
                         ["./program 3", "4", "/bin/program 2", "second 1", "4", "/bin/program 3", "second 1", "4", ""],
                         result.stderr)

    def test_code_cache(self):
        """Kept where the variable says, for who may: the same environment comes to other users and in other roots."""
        (self.folder / "source.c").write_text(SOURCE)
        subprocess.run([COMPILER, "-static", self.folder / "source.c", "-o", self.folder / "program"], check=True)
        (self.folder / "of_all").mkdir()
        (self.folder / "of_all").chmod(0o777)
        result = self.inside(f"""
            {DOPPEL} binfmt install
            cd {self.folder}
            for folder in off of_all/below/mine of_all /proc/none; do
                DOPPEL_CODE_CACHE=$folder ./program; echo $?
            done
            ls of_all/below/mine | wc -l; ls of_all | wc -l
        """)
        self.assertEqual(result.stdout.split("\n"), [*["./program 1", "4"] * 4, "1", "1", ""], result.stderr)

    def test_refuses(self):
        for arguments, status in (([], 2), (["instal"], 2), (["install", "x"], 2), (["status", "--jsn"], 2)):
            with self.subTest(arguments):
                result = subprocess.run([DOPPEL, "binfmt", *arguments], capture_output=True, text=True, timeout=60)
                self.assertEqual((result.returncode, result.stderr.count("\n")), (status, 1), result.stderr)


unittest.main()
