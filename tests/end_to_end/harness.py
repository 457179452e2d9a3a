"""Starts Doppel as users and scripts do, and talks with the guest over its console.

A test file ends with harness.main() and is run as FILE DOPPEL ENGINE [CASE...]. Exits with 77 when all that it
would have tested was skipped. Deadlines are there to end a test that hangs, not to measure: they leave room
for a busy machine.
"""
import functools
import http.client
import http.server
import os
import pathlib
import pty
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.request

DOPPEL = ENGINE = None  # what the command line names
SKIPPED = 77

LONGEST_SECONDS = 600  # of any machine, so that none outlives a test that was killed
ANSWER_SECONDS = 180
CACHE = pathlib.Path(os.environ.get("DOPPEL_CACHE") or
                     pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache", "doppel"))


def image(name):
    """A guest image's path; guest/README.md lists them."""
    return str(CACHE / name)


# With a disk, Doppel boots that unless it is told what else.
DEFAULT_GUEST = ("--kernel", image("Image"), "--initrd", image("initramfs.cpio.gz"))


class Machine:
    """One running `doppel boot`. All that it prints is collected, whether or not somebody waits for it."""

    def __init__(self, options, terminal=False, stdin=subprocess.PIPE, wrapper=()):
        command = [*wrapper, DOPPEL, "boot", "--engine", ENGINE, "--timeout", str(LONGEST_SECONDS), *options]
        self.terminal = None
        if terminal:
            self.terminal, guests_side = pty.openpty()

            def own_terminal():
                os.setsid()
                os.close(os.open(os.ttyname(guests_side), os.O_RDWR))  # becomes the controlling terminal

            self.process = subprocess.Popen(command, stdin=guests_side, stdout=guests_side, stderr=guests_side,
                                            preexec_fn=own_terminal)
            os.close(guests_side)  # so that reading ends with the process
            self._input = output = self.terminal
        else:
            self.process = subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            self._input = self.process.stdin and self.process.stdin.fileno()
            output = self.process.stdout.fileno()
        self.console = ""
        self._read = 0  # how much of it expect() has passed
        self._ended = False
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._collect, args=[output], daemon=True)
        self._reader.start()

    def _collect(self, output):
        while True:
            try:
                piece = os.read(output, 65536)
            except OSError:  # EIO: nobody has the pseudo-terminal open any more
                piece = b""
            with self._changed:
                self.console += piece.decode(errors="replace").replace("\r", "")
                self._ended = not piece
                self._changed.notify_all()
            if not piece:
                return

    def expect(self, pattern, seconds=ANSWER_SECONDS):
        """Waits until the console shows `pattern`, after all that was expected before. Returns the match."""
        expression = re.compile(pattern, re.DOTALL | re.MULTILINE)
        deadline = time.monotonic() + seconds
        with self._changed:
            while True:
                match = expression.search(self.console, self._read)
                if match:
                    self._read = match.end()
                    return match
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    self.fail(f"waited for {pattern!r}; " +
                              ("the machine ended" if self._ended else f"{seconds} s passed"))
                self._changed.wait(left)

    def send(self, text):
        data = text.encode()
        while data:
            data = data[os.write(self._input, data):]

    def shell(self, command, seconds=ANSWER_SECONDS):
        """Runs `command` in the shell at the console. Returns its output; fails when the command does."""
        # The shell's echo of this line differs from what the line prints.
        self.send(f"echo '<'begin'>'; {command}; echo '<'status $?'>'\n")
        match = self.expect(r"<begin>\n(.*)<status (\d+)>\n", seconds)
        if match[2] != "0":
            self.fail(f"status {match[2]} of {command}")
        return match[1].strip()

    def ended(self, seconds=ANSWER_SECONDS):
        """Waits for the end. Returns the exit status."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.fail(f"still running after {seconds} s")
        self._reader.join(seconds)
        return status

    def busy_share(self, seconds):
        """The share of one host core that the process uses for so many seconds."""
        began, before = time.monotonic(), self._cpu_seconds()
        time.sleep(seconds)
        return (self._cpu_seconds() - before) / (time.monotonic() - began)

    def _cpu_seconds(self):
        # proc(5): utime and stime are fields 14 and 15; the name before them may hold blanks.
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self):
        self.process.kill()
        self.process.wait()
        self._reader.join()
        if self.terminal is not None:
            os.close(self.terminal)
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                stream.close()

    def fail(self, why):
        lines = "\n".join("  | " + line for line in self.console.splitlines()[-30:])
        raise AssertionError(f"{why}\n  {shlex.join(self.process.args)}\n{lines}")


class EndToEnd(unittest.TestCase):
    def setUp(self):
        # Where the build is, rather than in /tmp: disks are large.
        folder = tempfile.TemporaryDirectory(prefix="end-to-end.", dir=".")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name).resolve()

    def boot(self, *options, **more):
        machine = Machine(options, **more)
        self.addCleanup(machine.kill)
        return machine

    def boot_to_run(self, commands, *options, **more):
        """Boots the default guest, which runs `commands`, until one fails, and powers off."""
        return self.boot(*DEFAULT_GUEST, "--append", f'console=ttyS0 quiet doppel.run="set -e; {commands}"', *options,
                         stdin=subprocess.DEVNULL, **more)

    def finished(self, machine, status=0, **more):
        """Waits for the machine's end with this exit status. Returns what it printed."""
        actual = machine.ended(**more)
        if actual != status:
            machine.fail(f"exit status {actual} instead of {status}")
        return machine.console

    def new_disk(self, size_bytes):
        path = self.folder / "disk"
        with open(path, "wb") as file:
            file.truncate(size_bytes)
        return str(path)

    def payload(self, size_bytes):
        """Random bytes, which are also the file `payload`."""
        contents = os.urandom(size_bytes)
        (self.folder / "payload").write_bytes(contents)
        return contents

    def serve_folder(self):
        """An HTTP server on the host's loopback, of the test's folder. Returns its port."""
        handler = functools.partial(QuietHandler, directory=self.folder)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server.server_port

    def tool(self, *command, statuses=(0,)):
        """Runs a host tool, of which administrators' ones need not be on the user's path."""
        path = os.environ["PATH"] + ":/usr/sbin:/sbin"
        done = subprocess.run(command, env={**os.environ, "PATH": path}, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.assertIn(done.returncode, statuses, f"{shlex.join(command)}\n{done.stdout}")
        return done.stdout


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def download(port, path, seconds=ANSWER_SECONDS):
    """What the server behind a forwarded port gives; it may still be starting."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=60) as answer:
                return answer.read()
        except (OSError, http.client.HTTPException):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def main():
    global DOPPEL, ENGINE
    DOPPEL, ENGINE = os.path.abspath(sys.argv[1]), sys.argv[2]
    sys.argv[1:] = sys.argv[3:]
    # An interrupt, or a time-out that asks first, ends the machines too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    result = unittest.main(module="__main__", exit=False, verbosity=2).result
    if not result.wasSuccessful():
        sys.exit(1)
    if result.testsRun == len(result.skipped):
        sys.exit(SKIPPED)
