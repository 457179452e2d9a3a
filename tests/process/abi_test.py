#!/usr/bin/env python3
"""Programs about threads, signals and processes, on both engines of `doppel run`.

Each prints what is the same on any Linux, so the host's own build of it says what is expected.

Usage: abi_test.py DOPPEL
"""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

FOLDER = pathlib.Path(__file__).parent
DOPPEL = sys.argv.pop(1)
SANITIZED = b"__asan_init" in pathlib.Path(DOPPEL).read_bytes()
COMPILER = "riscv64-linux-gnu-gcc"


@unittest.skipUnless(shutil.which(COMPILER), f"no {COMPILER}")
class Abi(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def run_program(self, *command):
        # A sanitizer would take signals that are the guest's to ignore. Code comes from no earlier run but of this test.
        options = "handle_segv=0:handle_sigbus=0:" + os.environ.get("ASAN_OPTIONS", "")
        return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=240,
                              env={**os.environ, "ASAN_OPTIONS": options,
                                   "DOPPEL_CODE_CACHE": str(self.folder / "code")})

    def check(self, name):
        source, native, program = FOLDER / f"{name}.c", self.folder / "native", self.folder / name
        subprocess.run(["gcc", "-O1", "-w", source, "-o", native, "-pthread"], check=True)
        subprocess.run([COMPILER, "-O1", "-w", "-static", source, "-o", program, "-pthread"], check=True,
                       stderr=subprocess.DEVNULL)
        expected = self.run_program(native)
        # The third time with the code of the second.
        for engine in "interpret", "translate", "translate":
            with self.subTest(engine=engine):
                result = self.run_program(DOPPEL, "run", "--engine", engine, program)
                self.assertEqual(result.stdout, expected.stdout, result.stderr)
                self.assertEqual(result.returncode, expected.returncode)

    def test_threads(self):
        self.check("threads")

    def test_signals(self):
        self.check("signals")

    # A child made by the system call itself may find a lock of the sanitizer's allocator held for ever.
    @unittest.skipIf(SANITIZED, "not under a sanitizer")
    def test_processes(self):
        self.check("processes")

    def test_clocks(self):
        self.check("clocks")
        result = self.run_program(DOPPEL, "run", "--strace", self.folder / "clocks", "count")
        self.assertLess(result.stderr.count("clock_gettime"), 2000)

    def test_probe(self):
        """Asked of the vDSO, as programs do at their start: no host has it, so what is expected stands here."""
        program = self.folder / "probe"
        subprocess.run([COMPILER, "-O1", "-w", "-static", FOLDER / "probe.c", "-o", program], check=True)
        for engine in "interpret", "translate":
            with self.subTest(engine=engine):
                result = self.run_program(DOPPEL, "run", "--engine", engine, program)
                self.assertEqual(result.stdout, "found 1\nnone 1\neach 1\nall 1, with keys that are none 1\n"
                                 "of processors 1, which 1\nno such flag 1\nbase 1, 1\n", result.stderr)
        result = self.run_program(DOPPEL, "run", "--strace", program, "count")
        self.assertEqual((result.returncode, result.stderr.count("riscv_hwprobe")), (0, 0), result.stderr)

    @unittest.skipIf(SANITIZED, "not under a sanitizer")
    def test_traces(self):
        self.check("traces")

    # There the guest's addresses are not the host's, which limits and other processes' /proc tell.
    @unittest.skipIf(SANITIZED, "not under a sanitizer")
    def test_files(self):
        self.check("files")


unittest.main()
