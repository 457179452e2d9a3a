#!/usr/bin/env python3
"""Runs the program as users and scripts do: what it prints, and how it exits.

Usage: cli_test.py DOPPEL

The guests are a few instructions long, put together here, so nothing but Python is needed.
"""
import json
import os
import pathlib
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
import unittest

DOPPEL = sys.argv.pop(1)
RAM = 0x8000_0000

# Machine code of the guests.
LUI_T0_FINISHER = 0x0010_02B7
WFI, JUMP_BACK = 0x1050_0073, 0xFFDF_F06F
WAIT = [WFI, JUMP_BACK]


def finish(value):
    """Stores `value` to the test finisher."""
    low = value & 0xFFF
    high = (value + 0x800) & 0xFFFF_F000
    return [LUI_T0_FINISHER, high | 0x337, (low << 20) | 0x0003_0313, 0x0062_A023] + WAIT


def say(text):
    """Writes `text` to the serial line."""
    code = [0x1000_02B7]  # lui t0, UART
    for byte in text.encode():
        code += [(byte << 20) | 0x0000_0313, 0x0062_8023]  # li t1, byte; sb t1, (t0)
    return code


# Reads bytes from the serial line and sends each back, plus one.
ECHO_NEXT = [
    0x1000_02B7,  # lui  t0, UART
    0x0052_C303,  # lbu  t1, 5(t0)
    0x0013_7313,  # andi t1, t1, 1
    0xFE03_0CE3,  # beqz t1, -8
    0x0002_C303,  # lbu  t1, 0(t0)
    0x0013_0313,  # addi t1, t1, 1
    0x0062_8023,  # sb   t1, 0(t0)
    0xFE9F_F06F,  # j    -24
]


def elf(code, machine=243, bits=64, at=RAM, only_hart=True):
    if only_hart:  # the others jump to a WFI loop in front
        code = [0xF140_22F3, 0x0002_8663] + WAIT + code  # csrr t0, mhartid; beqz t0, +12
    body = b"".join(struct.pack("<I", word) for word in code)
    ident = b"\x7fELF" + bytes([2 if bits == 64 else 1, 1, 1]) + bytes(9)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, at, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 7, 120, at, at, len(body), len(body), 4096)
    return header + segment + body


class Cli(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.environment = dict(os.environ, DOPPEL_CACHE=self.folder.name + "/cache")

    def path(self, name, contents=None):
        path = pathlib.Path(self.folder.name) / name
        if contents is not None:
            path.write_bytes(contents)
        return str(path)

    def bare_metal(self, code, **more):
        return ["boot", "--harts", "1", "--memory", "16M", "--net", "none", "--firmware", "none",
                "--kernel", self.path("guest.elf", elf(code, **more))]

    def doppel(self, *arguments, stdin=subprocess.DEVNULL, **more):
        return subprocess.run([DOPPEL, *arguments], stdin=stdin, capture_output=True, text=True, timeout=60,
                              env=self.environment, **more)

    def start(self, *arguments, **more):
        process = subprocess.Popen([DOPPEL, *arguments], env=self.environment, **more)
        self.addCleanup(process.kill)
        return process

    def refused(self, *arguments):
        """The sentence with which `arguments` are refused."""
        result = self.doppel(*arguments)
        self.assertEqual(result.returncode, 2, result)
        self.assertEqual(result.stdout, "")
        lines = result.stderr.splitlines()
        self.assertEqual(len(lines), 1, result.stderr)
        self.assertTrue(lines[0].startswith("doppel: "), lines[0])
        return lines[0]

    # --- Endings.

    def test_exit_status_is_the_guests(self):
        self.assertEqual(self.doppel(*self.bare_metal(finish(0x5555))).returncode, 0)
        self.assertEqual(self.doppel(*self.bare_metal(finish(0x0009_3333))).returncode, 9)

    def test_timeout(self):
        self.assertEqual(self.doppel(*self.bare_metal(WAIT), "--timeout", "0.2").returncode, 124)

    def test_reset_builds_the_machine_anew(self):
        process = self.start(*self.bare_metal(say("once ") + finish(0x7777)), stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE)
        text = b""
        while text.count(b"once") < 3:
            piece = os.read(process.stdout.fileno(), 100)
            self.assertNotEqual(piece, b"", "it ended")
            text += piece
        process.terminate()
        process.stdout.close()
        self.assertEqual(process.wait(30), 128 + signal.SIGTERM)

    def test_signals_stop_the_machine(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            process = self.start(*self.bare_metal(say("up") + WAIT), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            self.assertEqual(process.stdout.read(2), b"up")
            process.send_signal(number)
            self.assertEqual(process.wait(30), 128 + number)
            process.stdout.close()

    # --- Consoles.

    def test_output_and_input_through_pipes(self):
        process = self.start(*self.bare_metal(ECHO_NEXT), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        process.stdin.write(b"HAL")
        process.stdin.close()
        self.assertEqual(process.stdout.read(3), b"IBM")
        process.terminate()
        process.wait(30)
        process.stdout.close()

    def test_closed_standard_input(self):
        result = self.doppel(*self.bare_metal(say("ok") + finish(0x5555)), stdin=None,
                             preexec_fn=lambda: os.close(0))
        self.assertEqual((result.returncode, result.stdout), (0, "ok"))

    def test_console_in_a_file(self):
        out = self.path("console.txt")
        result = self.doppel(*self.bare_metal(say("to the file") + finish(0x5555)), "--console", "file=" + out)
        self.assertEqual((result.returncode, result.stdout), (0, ""))
        self.assertEqual(pathlib.Path(out).read_text(), "to the file")

    def test_console_at_a_socket_takes_one_client_after_another(self):
        address = self.path("console.socket")
        process = self.start(*self.bare_metal(ECHO_NEXT), "--console", "unix=" + address, stdin=subprocess.DEVNULL)
        for _ in range(2):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(30)
                self.until(lambda: client.connect(address))
                client.sendall(b"a")
                self.assertEqual(client.recv(1), b"b")
        process.terminate()
        process.wait(30)
        self.assertFalse(os.path.exists(address))

    def test_terminal_is_raw_and_given_back(self):
        main, terminal = pty.openpty()
        self.addCleanup(os.close, main)
        self.addCleanup(os.close, terminal)
        before = termios.tcgetattr(terminal)

        def become_foreground():
            os.setsid()
            os.close(os.open(os.ttyname(terminal), os.O_RDWR))  # becomes the controlling terminal

        for ending, status in ((b"\x01x", 0), (signal.SIGTERM, 128 + signal.SIGTERM)):
            process = self.start(*self.bare_metal(say("up") + ECHO_NEXT), stdin=terminal, stdout=terminal,
                                 stderr=terminal, preexec_fn=become_foreground)
            self.read_until(main, b"up")
            self.assertFalse(termios.tcgetattr(terminal)[3] & termios.ICANON)
            os.write(main, b"\x03")  # Ctrl-C is the guest's
            self.read_until(main, b"\x04")
            os.write(main, b"\x01h")
            self.read_until(main, b"Ctrl-A X")
            os.write(main, b"\x01a")
            self.read_until(main, b"\x02")
            if isinstance(ending, bytes):
                os.write(main, ending)
            else:
                process.send_signal(ending)
            self.assertEqual(process.wait(30), status)
            self.assertEqual(termios.tcgetattr(terminal), before)

    def read_until(self, descriptor, text):
        seen = b""
        while text not in seen:
            self.assertTrue(select.select([descriptor], [], [], 30)[0], f"{text} is not in {seen}")
            seen += os.read(descriptor, 1000)

    def until(self, attempt):
        for _ in range(3000):
            try:
                return attempt()
            except OSError:
                time.sleep(0.01)
        return attempt()

    # --- Statistics.

    def test_statistics(self):
        path = self.path("stats.json")
        self.doppel(*self.bare_metal(finish(0x5555)), "--stats=" + path)
        stats = json.loads(pathlib.Path(path).read_text())
        for key in ("engine", "seconds", "instructions", "blocks_translated", "regions_translated", "translate_seconds",
                    "background_seconds",
                    "code_bytes", "shadows", "exits", "traps", "harts"):
            self.assertIn(key, stats)
        self.assertEqual(set(stats["code_cache"]), {"hits", "misses", "loaded", "evicted", "invalidated"})
        self.assertGreater(stats["instructions"], 3)
        self.assertEqual(len(stats["harts"]), 1)
        result = self.doppel(*self.bare_metal(finish(0x5555)), "--stats")
        self.assertEqual(json.loads(result.stderr)["engine"], stats["engine"])

    # --- What is refused.

    def test_kernels(self):
        kernel = lambda contents: self.refused("boot", "--kernel", self.path("kernel", contents))
        self.assertIn("not a kernel image", kernel(os.urandom(5000)))
        self.assertIn("not a kernel image", kernel(b"#!/bin/sh\nexit 0\n"))
        self.assertIn("is empty", kernel(b""))
        self.assertIn("x86-64", kernel(elf(WAIT, machine=62)))
        self.assertIn("AArch64", kernel(elf(WAIT, machine=183)))
        self.assertIn("32-bit", kernel(elf(WAIT, bits=32)))
        self.assertIn("truncated", kernel(elf(WAIT)[:-1]))
        self.assertIn("truncated", kernel(elf(WAIT)[:100]))
        self.assertIn("truncated", kernel(b"\x1f\x8b\x08" + bytes(20)) + "truncated")
        self.assertIn("memory from 0x1000 ", kernel(elf(WAIT, at=0x1000)))
        self.assertIn("No such file", self.refused("boot", "--kernel", self.path("none")))
        self.assertIn("directory", self.refused("boot", "--kernel", self.folder.name))

    def test_memory_that_cannot_hold_the_initrd(self):
        kernel = self.path("kernel", elf(WAIT, at=RAM + 0x20_0000))
        initrd = self.path("initrd", bytes(15 << 20))
        self.assertIn(initrd, self.refused("boot", "--memory", "16M", "--kernel", kernel, "--initrd", initrd))

    def test_disks(self):
        kernel = ["boot", "--kernel", self.path("kernel", elf(WAIT))]
        self.assertIn("512", self.refused(*kernel, "--disk", self.path("odd", bytes(700))))
        self.assertIn("No such file", self.refused(*kernel, "--disk", self.path("none")))
        self.assertIn("format", self.refused(*kernel, "--disk", "d,format=vhd"))
        self.assertIn("too many", self.refused(*kernel, *["--net", "user"] * 8))

    def test_disk_has_one_writer(self):
        disk = self.path("disk", bytes(4096))
        guest = self.bare_metal(say("up") + WAIT)
        process = self.start(*guest, "--disk", disk, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.assertEqual(process.stdout.read(2), b"up")
        self.assertIn("in use", self.refused(*guest, "--disk", disk))
        process.terminate()
        process.wait(30)
        process.stdout.close()
        self.assertEqual(self.doppel(*self.bare_metal(finish(0x5555)), "--disk", disk).returncode, 0)

    def test_port_in_use(self):
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            holder.listen()
            port = holder.getsockname()[1]
            sentence = self.refused("boot", "--kernel", self.path("kernel", elf(WAIT)), "--net",
                                    f"user,forward=tcp:{port}:80")
            self.assertIn(str(port), sentence)

    def test_options(self):
        self.assertIn("make guest", self.refused("boot"))
        self.assertIn("--bogus", self.refused("boot", "--bogus"))
        self.assertIn("'bogus'", self.refused("bogus"))
        self.assertIn("command", self.refused())
        self.assertIn("suffix", self.refused("boot", "--memory", "12Q"))
        self.assertIn("not available", self.refused("boot", "--engine", "kvm"))
        self.assertIn("cannot write", self.refused(*self.bare_metal(WAIT), "--stats=" + self.folder.name))


unittest.main()
