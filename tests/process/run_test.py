#!/usr/bin/env python3
"""Runs a small riscv64 program on both engines of `doppel run`, and gives it files that are none.

Usage: run_test.py DOPPEL
"""
import json
import os
import pathlib
import re
import shutil
import stat
import signal
import subprocess
import sys
import tempfile
import unittest

SOURCE = pathlib.Path(__file__).with_name("programs.c")
DOPPEL = sys.argv.pop(1)
SANITIZED = b"__asan_init" in pathlib.Path(DOPPEL).read_bytes()
COMPILER = "riscv64-linux-gnu-gcc"
EXPECTED = """\
riscv64 1
realloc 7
mmap 3 0
bad pointer 1
sum 7.484470860550
child 42
"""
LARGE_SPACE = """\
low by default 1
hint 1
fixed 1
again 1
not again -1 EEXIST
across both 1
far away
vast 1
stays 5
unmap 0
protect what is not there -1 ENOMEM
1 far away
far away
write 8
read 8
far away
write from nowhere -1 EFAULT
the very end -1 ENOMEM
code 42000
changed 7
maps 1
child 8
"""


class Run(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def run_program(self, *arguments, cache="off"):
        return subprocess.run([DOPPEL, "run", *map(str, arguments)], capture_output=True, text=True, timeout=60,
                              env={**os.environ, "DOPPEL_CODE_CACHE": str(cache)})

    @unittest.skipUnless(shutil.which(COMPILER), f"no {COMPILER}")
    def test_programs(self):
        for kind, flags, options in ("static", ["-static"], []), ("dynamic", [], ["-L", "/usr/riscv64-linux-gnu"]):
            program = self.folder / kind
            subprocess.run([COMPILER, "-O1", *flags, SOURCE, "-o", program], check=True, stderr=subprocess.DEVNULL)
            for engine in "interpret", "translate":
                with self.subTest(kind, engine=engine):
                    result = self.run_program(*options, "--engine", engine, program)
                    self.assertEqual((result.stdout, result.returncode), (EXPECTED, 7), result.stderr)
                    statistics = self.folder / "statistics"
                    self.run_program(*options, "--engine", engine, f"--stats={statistics}", program)
                    told = json.loads(statistics.read_text())
                    self.assertEqual(told["engine"], engine)
                    self.assertGreater(told["instructions"], 1000)
                    self.assertGreater(told["traps"]["user_call"], 5)
                    fault = self.run_program(*options, "--engine", engine, program, "fault")
                    self.assertEqual(fault.returncode, -signal.SIGSEGV)

    @unittest.skipUnless(shutil.which(COMPILER), f"no {COMPILER}")
    def test_code_cache(self):
        """What one run has translated the next one finds, unless the program is another one."""
        cache, source = self.folder / "new/cache", self.folder / "source.c"
        text = """#include <stdio.h>
            __attribute__((noinline)) static long step(long x) { return x * 3 + NUMBER; }
            int main() { long x = 1; for (int i = 0; i < 100000; i++) x = step(x); printf("%ld\\n", x); return 3; }"""
        source.write_text(text)
        statistics = self.folder / "statistics"

        def compile_and_run(number, times):
            program = self.folder / "program"
            program.unlink(missing_ok=True)
            subprocess.run([COMPILER, "-O1", "-static", f"-DNUMBER={number}", source, "-o", program], check=True)
            told = []
            for _ in range(times):
                result = self.run_program(f"--stats={statistics}", program, cache=cache)
                self.assertEqual((result.returncode, result.stderr), (3, ""))
                told.append({"output": result.stdout, **json.loads(statistics.read_text())})
            return told

        first, second, third = compile_and_run(5, 3)
        self.assertEqual(first["output"], second["output"])
        self.assertEqual(first["code_cache"]["loaded"], 0)
        self.assertGreater(second["code_cache"]["loaded"], first["blocks_translated"] // 2)
        # The second run finds more worth translating.
        self.assertLess(third["blocks_translated"], 10)
        self.assertEqual(first["output"], third["output"])
        self.assertEqual(cache.stat().st_mode & 0o777, 0o700)
        self.assertEqual([file.stat().st_mode & 0o777 for file in cache.iterdir()], [0o600])

        # The same name, size and beginning; all but what has changed is still of use.
        other = compile_and_run(7, 1)[0]
        self.assertNotEqual(other["output"], first["output"])
        x = 1
        for _ in range(100000):
            x = (x * 3 + 7) % 2**64
        self.assertEqual(int(other["output"]) % 2**64, x)

        # Programs that it becomes share the folder, and one that nobody may use is an error.
        shell = self.run_program("--code-cache", "off", f"--stats={statistics}", self.folder / "program", cache=cache)
        self.assertEqual(shell.returncode, 3)
        self.assertEqual(json.loads(statistics.read_text())["code_cache"]["loaded"], 0)
        # Code that some passes have not seen is not mixed with it.
        kept = {path: path.stat().st_size for path in cache.iterdir()}
        self.run_program("--without-pass", "dead_state,dead_code", f"--stats={statistics}", self.folder / "program",
                         cache=cache)
        told = json.loads(statistics.read_text())
        self.assertEqual(told["code_cache"]["loaded"], 0)
        self.assertGreater(told["code_bytes"], other["code_bytes"])
        self.assertEqual({path: path.stat().st_size for path in cache.iterdir()}, kept)
        cache.chmod(0o777)
        refused = self.run_program(self.folder / "program", cache=cache)
        self.assertEqual(refused.returncode, 125)
        self.assertIn(str(cache), refused.stderr)
        # The interpreter has no use for it.
        interpreted = self.run_program("--engine", "interpret", self.folder / "program", cache=cache)
        self.assertEqual((interpreted.returncode, interpreted.stderr), (3, ""))

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

    def test_bad_programs(self):
        """Each with the status that a shell gives, and one sentence."""
        corpus = pathlib.Path(__file__).parents[2] / "fuzz/corpus/elf_program"
        for name, status, message in (
            ("thirty_two_bits", 126, "truncated"),
            ("other_machine", 126, "not a program for 64-bit RISC-V"),
            ("no_headers", 126, "program headers are damaged"),
            ("headers_outside", 126, "outside the file"),
            ("overlap", 126, "overlap"),
            ("wraps", 126, "segment 0 is damaged"),
            ("truncated", 126, "segment 0 is truncated"),
            ("many_headers", 126, "overlap"),
            ("missing_interpreter", 127, "its interpreter /lib/not/there cannot be opened"),
            ("script", 127, "interpreter"),
        ):
            with self.subTest(name):
                file = self.folder / name
                shutil.copy(corpus / name, file)
                file.chmod(0o755)
                result = self.run_program(file)
                self.assertEqual(result.returncode, status, result.stderr)
                self.assertRegex(result.stderr, r"^doppel: .*" + re.escape(message) + r".*\n$")
        for kind, contents, mode, status in (
            ("empty", "", 0o755, 126),
            ("text", "hello\n", 0o755, 126),
            ("no_permission", "#!/bin/sh\n", 0o644, 126),
            ("nested", f"#!{self.folder}/nested\n", 0o755, 126),
            ("nameless", "#!  \n", 0o755, 126),
            ("endless", "#!/" + "x" * 300, 0o755, 126),
        ):
            with self.subTest(kind):
                (self.folder / kind).write_text(contents)
                (self.folder / kind).chmod(mode)
                result = self.run_program(self.folder / kind)
                self.assertEqual((result.returncode, result.stderr.count("\n")), (status, 1), result.stderr)

    @unittest.skipUnless(shutil.which(COMPILER), f"no {COMPILER}")
    @unittest.skipIf(SANITIZED, "linked dynamically, it cannot start itself where its libraries are not")
    def test_root(self):
        """A root of its own, from which programs start others, without privilege."""
        root = self.folder / "root"
        (root / "bin").mkdir(parents=True)
        self.folder.chmod(0o755)
        source = self.folder / "inside.c"
        source.write_text(r"""
            #include <stdio.h>
            #include <stdlib.h>
            #include <unistd.h>
            int main(int count, char** arguments) {
              char path[4096] = {0};
              printf("%s %s\n", arguments[0], getcwd(path, sizeof path));
              fflush(stdout);
              if (count > 1) execl("/bin/inside", "again", NULL);
              printf("%d%d%d%d %s %s\n", access("/proc/self/status", F_OK), access("/dev/null", W_OK),
                     access("/extra/file", F_OK), access("/etc/passwd", F_OK), getenv("SHOWN"), getenv("GONE"));
              return 3;
            }
        """)
        subprocess.run([COMPILER, "-static", source, "-o", root / "bin/inside"], check=True)
        (self.folder / "bound").mkdir()
        (self.folder / "bound/file").touch()
        options = ["--root", root, "--bind", f"{self.folder}/bound:/extra", "--env", "SHOWN=yes", "--unset", "GONE"]
        command = [DOPPEL, "run", *map(str, options), "/bin/inside", "1"]
        expected = "/bin/inside /\nagain /\n000-1 yes (null)\n"
        for user in {os.geteuid(), 1000 if os.geteuid() == 0 else os.geteuid()}:
            with self.subTest(user=user):
                if user != os.geteuid():
                    for folder in (self.folder / "root").rglob("*"):
                        os.chown(folder, user, user)
                    os.chown(root, user, user)
                    copy = shutil.copy(DOPPEL, self.folder / "doppel")
                    command[0] = str(copy)
                result = subprocess.run(command, capture_output=True, text=True, timeout=60, user=user, group=user,
                                        extra_groups=[] if os.geteuid() == 0 else None,
                                        env={**os.environ, "GONE": "no"})
                if "user namespaces" in result.stderr:
                    self.skipTest(result.stderr)
                self.assertEqual((result.stdout, result.returncode), (expected, 3), result.stderr)

    @unittest.skipUnless(shutil.which(COMPILER), f"no {COMPILER}")
    @unittest.skipUnless(os.geteuid() == 0 and shutil.which("newuidmap"), "needs root, to be another user, and newuidmap")
    def test_root_with_other_users(self):
        """Those that /etc/subuid gives a user can own files and be become, as package managers do."""
        root = self.folder / "root"
        root.mkdir()
        source = self.folder / "inside.c"
        source.write_text("""
            #include <fcntl.h>
            #include <grp.h>
            #include <stdio.h>
            #include <sys/stat.h>
            #include <unistd.h>
            int main() {
              struct stat s = {0};
              printf("%d %d\\n", getuid(), getgid());
              close(open("/file", O_CREAT | O_WRONLY, 0644));
              printf("chown %d", chown("/file", 5, 6));
              stat("/file", &s);
              printf(" %d %d\\n", s.st_uid, s.st_gid);
              printf("become %d", setgroups(0, NULL) | setgid(65534) | setuid(42));
              printf(" %d %d\\n", getuid(), getgid());
            }
        """)
        subprocess.run([COMPILER, "-w", "-static", source, "-o", root / "inside"], check=True)
        self.folder.chmod(0o755)
        for folder in root, root / "inside":
            os.chown(folder, 1000, 1000)
        copy = shutil.copy(DOPPEL, self.folder / "doppel")
        script = 'mount --bind "$1" /etc/subuid && mount --bind "$1" /etc/subgid || exit 99; shift; exec "$@"'
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", self.folder / "ids"]
        command += ["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups"]
        command += [copy, "run", "--root", root, "/inside"]
        others = "0 0\nchown 0 5 6\nbecome 0 42 65534\n"
        alone = "0 0\nchown -1 0 0\nbecome -1 0 0\n"
        for ids, expected in ("1000:200000:70000\n", others), ("1001:200000:70000\n", alone):
            with self.subTest(ids):
                (self.folder / "ids").write_text(ids)
                (root / "file").unlink(missing_ok=True)
                result = subprocess.run(command, capture_output=True, text=True, timeout=60)
                if result.returncode == 99 or result.stderr.startswith("unshare") or "user namespaces" in result.stderr:
                    self.skipTest(result.stderr)
                self.assertEqual(result.stdout, expected, result.stderr)

    @unittest.skipUnless(shutil.which(COMPILER), f"no {COMPILER}")
    def test_root_with_nodes(self):
        """As debootstrap leaves them: files of the root, which have no terminals behind them."""
        root = self.folder / "root"
        (root / "dev/pts").mkdir(parents=True)
        for name, minor in ("null", 3), ("full", 7):
            try:
                os.mknod(root / "dev" / name, stat.S_IFCHR | 0o666, os.makedev(1, minor))
            except PermissionError:
                self.skipTest("device nodes are root's to make")
        source = self.folder / "inside.c"
        source.write_text("int access(); int main() { return access(\"/dev/tty\", 0) != 0 || !access(\"/dev/own\", 0); }")
        subprocess.run([COMPILER, "-w", "-static", source, "-o", root / "inside"], check=True)
        (root / "dev/own").touch()
        result = self.run_program("--root", root, "/inside")
        if "nothing can be mounted" in result.stderr:
            self.skipTest(result.stderr)
        self.assertEqual(result.returncode, 0, result.stderr)

    @unittest.skipUnless(shutil.which(COMPILER), f"no {COMPILER}")
    @unittest.skipIf(SANITIZED, "the sanitizer has its memory where the program's would be")
    def test_address_bits(self):
        program = self.folder / "spaces"
        source = pathlib.Path(__file__).with_name("spaces.c")
        subprocess.run([COMPILER, "-O1", "-w", "-static", source, "-o", program], check=True)
        for engine in "interpret", "translate":
            with self.subTest(engine=engine):
                small = self.run_program("--engine", engine, program)
                self.assertEqual(small.stdout, "low by default 1\nhint 1\nfixed -1 ENOMEM\n", small.stderr)
                large = self.run_program("--engine", engine, "--address-bits", "48", program, "x")
                self.assertEqual((large.stdout, large.returncode), (LARGE_SPACE * 2, 0), large.stderr)
        # Few hosts have as much.
        vast = self.run_program("--address-bits", "57", program, "x")
        if vast.returncode != 125:
            self.assertIn("child 8", vast.stdout, vast.stderr)
        else:
            self.assertEqual(vast.stderr, "doppel: programs of this host have less than 57 bits of address\n")
        self.assertEqual(self.run_program("--address-bits", "40", program).returncode, 2)

    def test_options(self):
        for options, status, message in (
            (["--nothing", "x"], 2, "unknown option"),
            (["--root"], 2, "value is missing"),
            (["--bind", "/", "x"], 2, "--root"),
            (["--root", "/", "-L", "/", "x"], 2, "-L"),
            (["--cpu", "z80", "x"], 2, "rva22"),
            (["--env", "X", "x"], 2, "NAME=VALUE"),
            (["--without-pass", "dead_code,dead_wood", "x"], 2, "'dead_wood' is none of .*dead_state, .*dead_code"),
            ([], 2, "which program"),
            (["--root", "/nonexistent", "x"], 125, "No such file"),
            (["--cwd", "/nonexistent", "x"], 125, "No such file"),
        ):
            with self.subTest(options):
                result = self.run_program(*options)
                self.assertEqual(result.returncode, status, result.stderr)
                self.assertRegex(result.stderr, "^doppel: .*" + message)
                self.assertEqual(result.stderr.count("\n"), 1)


unittest.main()
