#!/usr/bin/env python3
"""Debugs a bare-metal guest with gdb-multiarch, which drives `doppel boot --gdb`.

Usage: gdb_test.py DOPPEL ENGINE. Exits with 77 where gdb or the cross compiler is missing.
"""
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest

SKIPPED = 77
GDB, COMPILER = "gdb-multiarch", "riscv64-linux-gnu-gcc"
SOURCE = pathlib.Path(__file__).with_name("gdb_guest.c")
SECONDS = 120

DOPPEL, ENGINE = os.path.abspath(sys.argv[1]), sys.argv[2]
del sys.argv[1:3]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Gdb(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.guest = cls.folder.name + "/guest.elf"
        subprocess.run([COMPILER, "-g", "-O1", "-march=rv64gc", "-mcmodel=medany", "-ffreestanding", "-nostdlib",
                        "-static", "-fno-pic",
                        "-Wl,-N,-Ttext=0x80000000,--build-id=none,--no-warn-rwx-segments,--no-relax", str(SOURCE), "-o", cls.guest], check=True)

    def boot(self, *options, where=None):
        where = where or self.folder.name + "/gdb.socket"
        machine = subprocess.Popen([DOPPEL, "boot", "--engine", ENGINE, "--memory", "16M", "--net", "none",
                                    "--firmware", "none", "--kernel", self.guest, "--gdb", where, *options],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.addCleanup(machine.wait)
        self.addCleanup(machine.stdout.close)
        self.addCleanup(machine.kill)
        self.connect = f"target remote {':' + where if where.isdigit() else where}"
        if not where.isdigit():
            deadline = time.monotonic() + SECONDS
            while not os.path.exists(where):
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.01)
        return machine

    def gdb(self, *commands, connect=True):
        """Runs gdb with these commands. Returns what it printed."""
        command = [GDB, "-nx", "-batch", "-ex", "set confirm off", "-ex", "set pagination off", "-ex", "set print entry-values no",
                   "-ex", "set tcp connect-timeout 60", *([] if not connect else ["-ex", self.connect])]
        for line in commands:
            command += ["-ex", line]
        done = subprocess.run([*command, self.guest], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=SECONDS)
        self.output = done.stdout
        return done.stdout

    def shows(self, *texts):
        """The output has these, in this order."""
        at = 0
        for text in texts:
            found = self.output.find(text, at)
            self.assertGreaterEqual(found, 0, f"{text!r} is missing after {at}\n{self.output}")
            at = found + len(text)

    def test_breakpoints_and_continuing_to_the_end(self):
        machine = self.boot("--harts", "1")
        self.gdb("info symbol $pc", "break square", "continue", "p n", "bt", "continue", "p n", "delete", "continue")
        self.shows("_start in section", "Breakpoint 1, square (n=1)", "$1 = 1", "#1", "in sum", "Breakpoint 1, square (n=2)",
                   "exited normally")
        self.assertEqual(machine.wait(SECONDS), 0)

    def test_exit_status(self):
        machine = self.boot("--harts", "1")
        self.gdb("set var limit = 3", "continue")
        self.shows("exited with code 01")
        self.assertEqual(machine.wait(SECONDS), 1)

    def test_hardware_breakpoints(self):
        self.boot("--harts", "1")
        self.gdb("hbreak square", "continue", "continue", "p counter", "kill")
        self.shows("Breakpoint 1, square (n=1)", "Breakpoint 1, square (n=2)", "= 2")

    def test_steps(self):
        self.boot("--harts", "1")
        self.gdb("stepi", "stepi", "info symbol $pc", "stepi", "p/x $t0", "break sum", "continue", "next", "next", "step",
                 "finish", "kill")
        self.shows("_start + 6 in", "= 0x0", "Breakpoint 1, sum", "square (n=1)", "Value returned is", "1")

    def test_watchpoints(self):
        self.boot("--harts", "1")
        self.gdb("watch counter", "continue", "continue", "delete", "rwatch limit", "continue", "delete",
                 "awatch total", "continue", "info symbol $pc", "kill")
        self.shows("Hardware watchpoint 1: counter", "Old value = 0", "New value = 1", "Old value = 1", "New value = 2",
                   "Hardware read watchpoint 2: limit", "Value = 10", "Hardware access (read/write) watchpoint 3: total",
                   "Value = ", "sum")

    def test_registers_and_memory(self):
        self.boot("--harts", "1")
        self.gdb("break square", "continue", "p $a0", "set var $a0 = 5", "finish", "p $priv", "p/x $mhartid",
                 "set var $mscratch = 0x1234", "p/x $mscratch", "set var $fa0 = 2.5", "p $fa0.double", "p $fcsr",
                 "set var ratio = 4", "p ratio", "x/i square", "p/x $x5 == $t0", "monitor info", "monitor help",
                 "monitor nonsense", "kill")
        self.shows("$1 = 1", "Value returned is", "25", "= 0x0", "= 0x1234", "= 2.5", "= 0", "= 4", "mul",
                   "hart 0: machine", "info", "Unknown command")

    def test_harts_are_threads(self):
        self.boot("--harts", "2")
        self.gdb("set var limit = 1000000000000", "info threads", "break count", "continue", "info threads", "delete", "break square", "continue",
                 "thread 2", "p others > 0", "p/x $mhartid", "thread 1", "p $mhartid", "kill")
        self.shows("hart 0: machine", "hart 1: machine", "count ()", "hit Breakpoint 2, square",
                   "Switching to thread 2", "= 0x1", "Switching to thread 1", "= 0")

    def test_watchpoint_of_another_hart(self):
        self.boot("--harts", "2")
        self.gdb("set var limit = 1000000000000", "watch others", "continue", "p $mhartid", "kill")
        self.shows("hit Hardware watchpoint 1: others", "New value = 1", "= 1")

    def test_kill(self):
        machine = self.boot("--harts", "2")
        self.gdb("kill")
        self.assertEqual(machine.wait(SECONDS), 128 + 9)

    def test_detach_and_come_again(self):
        machine = self.boot("--harts", "2")
        self.gdb("break square", "set var limit = 1000000000000", "continue", "detach")
        self.shows("Breakpoint 1, square", "detached")
        self.assertIsNone(machine.poll())
        self.gdb("p others > 0", "p counter > 0", "break square", "continue", "set var total = 385 - (counter * counter)",
                 "set var limit = 0", "delete", "continue")
        self.shows("= 1", "= 1", "Breakpoint 1, square")
        self.assertEqual(machine.wait(SECONDS), 0)

    def test_interrupt(self):
        self.boot("--harts", "2")
        self.gdb("set var limit = 1000000000000",
                 "python import threading, os, signal; "
                 "threading.Timer(1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()",
                 "continue", "p counter > 0", "kill")
        self.shows("SIGINT", "= 1")

    def test_a_reset_goes_on_with_the_same_breakpoints(self):
        machine = self.boot("--harts", "1")
        self.gdb("break finish", "set var ending = 0x7777", "continue", "p ending", "continue", "p ending", "delete",
                 "continue")
        self.shows("Breakpoint 1, finish", "$1 = 30583", "Breakpoint 1, finish", "$2 = 0", "exited normally")
        self.assertEqual(machine.wait(SECONDS), 0)

    def test_at_a_port(self):
        port = str(free_port())
        machine = self.boot("--harts", "1", where=port)
        self.gdb("continue")
        self.shows("exited normally")
        self.assertEqual(machine.wait(SECONDS), 0)

    def test_nobody_there_means_waiting(self):
        machine = self.boot("--harts", "1", "--timeout", "0.5")
        self.assertEqual(machine.wait(SECONDS), 124)

    def test_refusals(self):
        for where in ("0", "65536", "x" * 200):
            done = subprocess.run([DOPPEL, "boot", "--firmware", "none", "--kernel", self.guest, "--gdb", where],
                                  capture_output=True, text=True, timeout=SECONDS)
            self.assertEqual((done.returncode, done.stderr[:13]), (2, "doppel: --gdb"))


if __name__ == "__main__":
    if not shutil.which(GDB) or not shutil.which(COMPILER):
        sys.exit(SKIPPED)
    unittest.main(verbosity=2)
