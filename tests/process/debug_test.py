#!/usr/bin/env python3
"""Debugs a riscv64 program with gdb-multiarch, which drives `doppel run --gdb`.

Usage: debug_test.py DOPPEL ENGINE. Exits with 77 where gdb or the cross compiler is missing.
"""
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

SKIPPED = 77
GDB, COMPILER = "gdb-multiarch", "riscv64-linux-gnu-gcc"
SOURCE = pathlib.Path(__file__).with_name("debugged.c")
SECONDS = 120  # for what takes some
PREFIX = "/usr/riscv64-linux-gnu"

DOPPEL, ENGINE = os.path.abspath(sys.argv[1]), sys.argv[2]
del sys.argv[1:3]

# A second after the program goes on the next time: before it does, gdb would drop its other commands.
INTERRUPT = """
import os, signal, threading

def interrupt_soon(event):
    gdb.events.cont.disconnect(interrupt_soon)
    threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()

gdb.events.cont.connect(interrupt_soon)
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Debug(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.guest = cls.folder.name + "/debugged"
        cls.dynamic = cls.folder.name + "/dynamic"
        interrupt = pathlib.Path(cls.folder.name, "interrupt.py")
        interrupt.write_text(INTERRUPT)
        cls.interrupt = f"source {interrupt}"
        for flags, program in (["-static"], cls.guest), ([], cls.dynamic):
            subprocess.run([COMPILER, "-g", "-O1", *flags, str(SOURCE), "-o", program, "-pthread"], check=True)

    def start(self, *arguments, where=None, options=(), program=None):
        where = where or self.folder.name + "/gdb.socket"
        self.program = program or self.guest
        guest = subprocess.Popen([DOPPEL, "run", "--engine", ENGINE, "--gdb", where, *options, self.program, *arguments],
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.addCleanup(guest.wait)
        self.addCleanup(guest.stdout.close)
        self.addCleanup(guest.kill)
        self.connect = f"target remote {':' + where if where.isdigit() else where}"
        if not where.isdigit():
            deadline = time.monotonic() + SECONDS
            while not os.path.exists(where):
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.01)
        return guest

    def gdb(self, *commands):
        """Runs gdb with these commands. Returns what it printed."""
        command = [GDB, "-nx", "-batch"]
        for line in ("set confirm off", "set pagination off", "set print entry-values no", "set sysroot " + PREFIX,
                     "set tcp connect-timeout 60", self.connect, *commands):
            command += ["-ex", line]
        with subprocess.Popen([*command, self.program], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, cwd=self.folder.name) as gdb:
            try:
                self.output = gdb.communicate(timeout=SECONDS)[0]
            except subprocess.TimeoutExpired:
                gdb.kill()
                self.fail(f"gdb has not ended after {SECONDS} seconds\n{gdb.communicate()[0]}")
        return self.output

    def shows(self, *texts):
        """The output has these, in this order."""
        at = 0
        for text in texts:
            found = self.output.find(text, at)
            self.assertGreaterEqual(found, 0, f"{text!r} is missing after {at}\n{self.output}")
            at = found + len(text)

    def test_breakpoints_and_the_end(self):
        guest = self.start()
        self.gdb("info symbol $pc", "break square", "continue", "p n", "bt", "continue", "p n", "delete", "continue")
        self.shows("_start in section", "hit Breakpoint 1, square (n=1)", "$1 = 1", "#1", "in sum", "#2", "in main",
                   "hit Breakpoint 1, square (n=2)", "exited with code 05")
        self.assertEqual((guest.wait(SECONDS), guest.stdout.read()), (5, "14\n"))

    def test_registers_and_memory(self):
        guest = self.start()
        self.gdb("break square", "continue", "p $a0", "set var $a0 = 5", "finish", "set var $fa0 = 2.5", "p $fa0.double",
                 "p $fcsr", "set var status = 9", "p status", "x/i square", "p/x $x5 == $t0", "x/s *environ",
                 "x/4xb 0", "monitor info", "monitor nonsense", "set var *(short*)square = 0", "x/hx square",
                 "delete", "continue")
        self.shows("$1 = 1", "Value returned is", "25", "= 2.5", "= 0", "= 9", "mul", "= 0x1", "=", "Cannot access memory",
                   "debugged", "pc 0x", "Unknown command", "0x0000", "SIGILL")
        guest.kill()

    def test_written_memory_decides(self):
        guest = self.start()
        self.gdb("set var status = 9", "set var limit = 4", "continue")
        self.shows("exited with code 011")
        self.assertEqual((guest.wait(SECONDS), guest.stdout.read()), (9, "30\n"))

    def test_steps(self):
        self.start()
        self.gdb("stepi", "stepi", "info symbol $pc", "break sum", "continue", "next", "step", "finish", "kill")
        self.shows("load_gp + ", "hit Breakpoint 1, sum", "square (n=1)", "Value returned is", "1")

    def test_watchpoints(self):
        self.start()
        self.gdb("break sum", "continue", "watch counter", "continue", "continue", "delete", "rwatch limit", "continue",
                 "delete", "awatch total", "continue", "info symbol $pc", "kill")
        self.shows("Hardware watchpoint 2: counter", "Old value = 0", "New value = 1", "Old value = 1", "New value = 2",
                   "Hardware read watchpoint 3: limit", "Value = 3", "Hardware access (read/write) watchpoint 4: total",
                   "Value = ", "sum")

    def test_hardware_breakpoints(self):
        self.start()
        self.gdb("hbreak square", "continue", "continue", "p counter", "kill")
        self.shows("hit Breakpoint 1, square (n=1)", "hit Breakpoint 1, square (n=2)", "= 1")

    def test_threads(self):
        self.start()
        self.gdb("break count", "continue", "info threads", "bt", "thread 1", "p others", "delete", "break square",
                 "continue", "info threads", "kill")
        self.shows("hit Breakpoint 1, count", "* 2", "other", "[Switching to thread 1", "= 0", "hit Breakpoint 2, square")

    def test_watchpoint_of_another_thread(self):
        self.start()
        self.gdb("set var limit = 2000000000", "watch others", "continue", "continue", "kill")
        self.shows("Hardware watchpoint 1: others", "New value = 1", "New value = 2")

    def test_threads_that_end_one_by_one(self):
        guest = self.start("threads")
        self.gdb("continue")
        self.shows("exited normally")
        self.assertEqual(guest.wait(SECONDS), 0)

    def test_signals(self):
        guest = self.start("signals")
        self.gdb("continue", "p handled", "break handler", "continue", "finish", "continue")
        self.shows("received signal SIGUSR1", "$1 = 0", "Breakpoint 1, handler (number=10)", "exited with code 05")
        self.assertEqual(guest.wait(SECONDS), 5)

    def test_a_signal_that_is_not_delivered(self):
        self.start("signals")
        self.gdb("continue", "break sum", "signal 0", "p handled", "signal SIGUSR1", "p handled", "kill")
        self.shows("received signal SIGUSR1", "Breakpoint 1, sum", "$1 = 0")

    def test_fatal_signals(self):
        for what, name in ("abort", "SIGABRT"), ("fault", "SIGSEGV"):
            guest = self.start(what)
            self.gdb("continue", "bt", "continue")
            self.shows(f"received signal {name}", "main", f"terminated with signal {name}")
            self.assertEqual(guest.wait(SECONDS), -getattr(signal, name))

    def test_a_storm_of_threads_calls_and_signals(self):
        guest = self.start("storm")
        self.gdb("handle SIGALRM nostop noprint pass", "break hit", "ignore 1 150", "continue", "info breakpoints", "stepi",
                 "next", "set scheduler-locking on", "stepi", "finish", "set scheduler-locking off", "delete", "continue")
        self.shows("hit Breakpoint 1, hit (n=1)", "already hit", "exited normally")
        # A signal that comes while a thread steps over the breakpoint has it hit again after the handler. gdb counts that,
        # and does not stop there.
        self.assertGreaterEqual(int(re.search(r"already hit (\d+) times", self.output)[1]), 151)
        self.assertEqual(guest.wait(SECONDS), 0)

    def test_threads_begin_while_another_steps_over_a_breakpoint(self):
        guest = self.start("crowd")
        self.gdb("handle SIGALRM nostop noprint pass", "break hit", "ignore 1 10000", "continue")
        self.shows("exited normally")
        self.assertEqual(guest.wait(SECONDS), 0)

    def test_the_only_thread_that_runs_may_end(self):
        guest = self.start()
        self.gdb("break sum", "continue", "p done = 1", "set scheduler-locking on", "thread 2", "continue", "info threads", "thread 1",
                 "set scheduler-locking off", "continue")
        self.shows("hit Breakpoint 1, sum", "[Switching to thread 2", "No unwaited-for children left", "exited with code 05")
        self.assertEqual(guest.wait(SECONDS), 5)

    def test_interrupt(self):
        guest = self.start()
        self.gdb("set var limit = 2000000000", self.interrupt, "continue", "p others > 0", "p done = 1", "set var limit = 0",
                 "continue")
        self.shows("SIGINT", "= 1", "exited with code 05")
        self.assertEqual(guest.wait(SECONDS), 5)

    def test_interrupt_of_a_system_call(self):
        self.start("sleep")
        self.gdb(self.interrupt, "continue", "bt", "monitor info", "kill")
        self.shows("SIGINT", "pause", "main", "in a system call")

    def test_a_child_has_no_breakpoints(self):
        guest = self.start("child")
        self.gdb("break in_child", "break square", "continue")
        self.shows("exited with code 044")
        self.assertEqual(guest.wait(SECONDS), 36)

    def test_breakpoints_outlive_a_child_that_borrows(self):
        self.start("spawn")
        self.gdb("break square", "continue", "kill")
        self.shows("Breakpoint 1, square (n=2)")

    def test_a_signal_while_nobody_is_there(self):
        guest = self.start()
        guest.terminate()
        self.assertEqual(guest.wait(SECONDS), -signal.SIGTERM)

    def test_kill(self):
        guest = self.start()
        self.gdb("kill")
        self.assertEqual(guest.wait(SECONDS), -signal.SIGKILL)

    def test_detach_and_come_again(self):
        guest = self.start()
        self.gdb("break square", "set var limit = 2000000000", "continue", "detach")
        self.shows("Breakpoint 1, square", "detached")
        self.assertIsNone(guest.poll())
        self.gdb("p others > 0", "p counter > 0", "break square", "continue", "set var limit = 0", "delete", "continue")
        self.shows("= 1", "= 1", "Breakpoint 1, square", "exited with code 05")
        self.assertEqual(guest.wait(SECONDS), 5)
        self.assertFalse(os.path.exists(self.folder.name + "/gdb.socket"))

    def test_dynamic_program(self):
        guest = self.start(program=self.dynamic, options=["-L", PREFIX])
        self.gdb("break square", "continue", "bt", "info sharedlibrary", "delete", "continue")
        self.shows("Breakpoint 1, square (n=1)", "in main", "libc.so.6", "exited with code 05")
        self.assertEqual(guest.wait(SECONDS), 5)

    def test_at_a_port(self):
        guest = self.start(where=str(free_port()))
        self.gdb("continue")
        self.shows("exited with code 05")
        self.assertEqual(guest.wait(SECONDS), 5)

    def test_refusals(self):
        for where in ("0", "65536", "x" * 200):
            done = subprocess.run([DOPPEL, "run", "--gdb", where, self.guest], capture_output=True, text=True,
                                  timeout=SECONDS)
            self.assertEqual((done.returncode, done.stderr[:13]), (125, "doppel: --gdb"))

    def test_a_program_that_is_not_there_leaves_no_socket(self):
        where = self.folder.name + "/left"
        done = subprocess.run([DOPPEL, "run", "--gdb", where, self.guest + "x"], capture_output=True, timeout=SECONDS)
        self.assertEqual((done.returncode, os.path.exists(where)), (127, False))


if __name__ == "__main__":
    if not shutil.which(GDB) or not shutil.which(COMPILER):
        sys.exit(SKIPPED)
    unittest.main(verbosity=2)
