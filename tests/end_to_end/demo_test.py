#!/usr/bin/env python3
"""The README's first command, where there is no terminal. demo_test.py BUILD-FOLDER SOURCE-FOLDER"""
import os
import subprocess
import sys

build, source = sys.argv[1:]
# A make around this one must not lend it its options.
environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
demo = subprocess.run(["make", "-C", source, "BUILD=" + build, "demo"], env=environment, stdin=subprocess.DEVNULL,
                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=240)
for expected in ("Linux doppel 6.", "riscv64 GNU/Linux", 'PRETTY_NAME="Debian GNU/Linux 13'):
    if demo.returncode != 0 or expected not in demo.stdout:
        sys.exit(f"make demo: status {demo.returncode}; its output should have {expected!r}\n{demo.stdout[-3000:]}")
