#!/usr/bin/env python3
"""Runs a small riscv64 program on both engines of `doppel run`, and gives it files that are none.

Usage: run_test.py DOPPEL
"""
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

SOURCE = pathlib.Path(__file__).with_name("programs.c")
DOPPEL = sys.argv.pop(1)
COMPILER = "riscv64-linux-gnu-gcc"
EXPECTED = """\
riscv64 1
realloc 7
mmap 3 0
bad pointer 1
sum 7.484470860550
child 42
"""


class Run(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def run_program(self, *arguments):
        return subprocess.run([DOPPEL, "run", *map(str, arguments)], capture_output=True, text=True, timeout=60)

    @unittest.skipUnless(shutil.which(COMPILER), f"no {COMPILER}")
    def test_programs(self):
        for kind, flags, options in ("static", ["-static"], []), ("dynamic", [], ["-L", "/usr/riscv64-linux-gnu"]):
            program = self.folder / kind
            subprocess.run([COMPILER, "-O1", *flags, SOURCE, "-o", program], check=True, stderr=subprocess.DEVNULL)
            for engine in "interpret", "translate":
                with self.subTest(kind, engine=engine):
                    result = self.run_program(*options, "--engine", engine, program)
                    self.assertEqual((result.stdout, result.returncode), (EXPECTED, 7), result.stderr)
                    fault = self.run_program(*options, "--engine", engine, program, "fault")
                    self.assertEqual(fault.returncode, -signal.SIGSEGV)

    def test_refused(self):
        damaged = self.folder / "damaged"
        damaged.write_bytes(b"\x7fELF" + b"\xff" * 100)
        damaged.chmod(0o755)
        script = self.folder / "script"
        script.write_text("#!/nonexistent/interpreter\n")
        script.chmod(0o755)
        for path, status in ("/nonexistent", 127), ("/", 126), (damaged, 126), ("/bin/true", 126), (script, 127):
            with self.subTest(path):
                result = self.run_program(path)
                self.assertEqual(result.returncode, status, result.stderr)
                self.assertRegex(result.stderr, r"^doppel: .*\n$")


unittest.main()
