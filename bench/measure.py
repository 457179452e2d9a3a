"""Running commands, watching their console, and tables of medians: what the benches share."""

import dataclasses
import json
import os
import pathlib
import re
import selectors
import shutil
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
CACHE = pathlib.Path(
    os.environ.get("DOPPEL_CACHE")
    or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "doppel")
)
ESCAPE = re.compile(r"\x1b\[[0-9;?!]*[A-Za-z]")  # of terminals
LINE = re.compile(r"^(begin|end|failed|kernel) (\w+)(?: ([0-9.]+))?\s*$")


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def need(*programs: str) -> None:
    """Ends with a message if a program is not installed."""
    if missing := [program for program in programs if not shutil.which(program)]:
        raise SystemExit(f"bench: {', '.join(missing)} not found; README.md in this folder says what to install")


def unpack(name: str, codename: str, alias: str, architecture: str, *packages: str) -> pathlib.Path:
    """A folder with these Debian packages and all that they depend on, unpacked and not installed."""
    arguments = [name, codename, alias, architecture, *packages]
    done = subprocess.run([HERE / "unpack", *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return pathlib.Path(done.stdout.strip())


def with_loader(root: pathlib.Path, program: str) -> list[str]:
    """The command for an x86-64 PROGRAM of an unpacked folder, with the folder's own loader and libraries."""
    libraries = root / "usr/lib/x86_64-linux-gnu"
    folders = [libraries, *sorted({path.parent for path in libraries.glob("*/lib*.so*")})]
    loader = libraries / "ld-linux-x86-64.so.2"
    return [str(loader), "--library-path", ":".join(map(str, folders)), str(root / program)]


def check_versions(native: pathlib.Path, guest: pathlib.Path) -> None:
    """Says which packages the two unpacked folders hold in different versions."""

    def versions(root: pathlib.Path) -> dict[str, str]:
        lines = root.with_name(root.name + ".versions").read_text().split()
        # A rebuild for one architecture, +bN, has the same sources.
        return {line.split("_")[0]: re.sub(r"\+b\d+$", "", line.split("_")[1]) for line in lines}

    ours, theirs = versions(native), versions(guest)
    for name in sorted(ours.keys() & theirs.keys()):
        if ours[name] != theirs[name]:
            say(f"{name} is {ours[name]} natively and {theirs[name]} for the guest")


def build_coremark(compiler: str, sources: pathlib.Path, target: pathlib.Path) -> bool:
    """Builds CoreMark, static; false if its sources are not there."""
    if not (sources / "core_main.c").exists():
        return False
    files = [sources / f"core_{name}.c" for name in ["list_join", "main", "matrix", "state", "util"]]
    command = [compiler, "-O2", "-static", f"-I{sources}", f"-I{sources}/posix", "-DPERFORMANCE_RUN=1"]
    command += ['-DFLAGS_STR="-O2 -static"', "-o", target, *files, sources / "posix" / "core_portme.c"]
    subprocess.run(command, check=True)
    return True


class Console:
    """A running command whose output is read with times, as its lines appear."""

    def __init__(self, command: list[str], cpus: set[int] | None = None, environment: dict[str, str] | None = None):
        self.begin = time.monotonic()
        self.text = ""
        self._at = 0  # what follows is not a seen line yet
        self.lines: list[tuple[float, str]] = []
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            preexec_fn=(lambda: os.sched_setaffinity(0, cpus)) if cpus else None,
        )
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.process.stdout, selectors.EVENT_READ)

    def write(self, text: str) -> None:
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def wait_for(self, pattern: str, deadline: float) -> float | None:
        """The seconds since the start at which the output had PATTERN; None at the end or the deadline."""
        seen = re.compile(pattern, re.MULTILINE)
        while not seen.search(self.text):
            if not self._read(deadline):
                return None
        return time.monotonic() - self.begin

    def finish(self, deadline: float) -> bool:
        """Reads to the end. False if that was not before the deadline."""
        while self._read(deadline):
            pass
        ended = time.monotonic() < deadline
        self.stop()
        return ended

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self._selector.close()

    def _read(self, deadline: float) -> bool:
        left = deadline - time.monotonic()
        if left <= 0 or not self._selector.select(left):
            return False
        data = os.read(self.process.stdout.fileno(), 65536)
        if not data:
            return False
        self.text += data.decode(errors="replace").replace("\r", "")
        while (end := self.text.find("\n", self._at)) >= 0:
            self.lines.append((time.monotonic(), ESCAPE.sub("", self.text[self._at : end])))
            self._at = end + 1
        return True


def values(console: Console) -> dict[str, float]:
    """What the programs under measurement said that they took, by the clock that they saw.

    That clock must agree with ours to a tenth, or the value is left out: a machine whose time runs slow
    would otherwise look fast.
    """
    result: dict[str, float] = {}
    begun: dict[str, float] = {}
    for at, line in console.lines:
        if not (match := LINE.match(line)):
            continue
        kind, name, seconds = match.groups()
        if kind == "begin":
            begun[name] = at
        elif kind == "failed":
            say(f"{name} failed:\n{console.text[-2000:]}")
        elif kind == "end" and name in begun:
            ours = at - begun[name]
            if abs(float(seconds) - ours) > 0.1 * ours + 0.05:
                say(f"{name}: {seconds} s by the guest's clock, {ours:.3f} s by the host's; left out")
                result.pop(name, None)
            else:
                # A kernel's own figure leaves out its start as a process.
                result.setdefault(name, float(seconds))
        elif kind == "kernel":
            result[name] = float(seconds)
    return result


@dataclasses.dataclass
class Row:
    """One line of a table: a figure for each column, in every repetition."""

    name: str
    title: str
    unit: str = "s"
    more_is_better: bool = False
    due: str = ""
    figures: dict[str, list[float]] = dataclasses.field(default_factory=dict)

    def add(self, column: str, value: float | None) -> None:
        if value is not None:
            self.figures.setdefault(column, []).append(value)

    def median(self, column: str) -> float | None:
        return statistics.median(self.figures[column]) if self.figures.get(column) else None

    def spread(self, column: str) -> float:
        """Largest less smallest, in parts of the median."""
        figures = self.figures[column]
        middle = statistics.median(figures)
        return (max(figures) - min(figures)) / middle if middle else 0.0

    def times(self, column: str, base: str) -> float | None:
        """How many times as fast COLUMN is as BASE."""
        mine, other = self.median(column), self.median(base)
        if not mine or not other:
            return None
        return mine / other if self.more_is_better else other / mine


def number(value: float | None, digits: int = 3) -> str:
    if value is None:
        return "-"
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.{digits}g}"


def cell(row: Row, column: str) -> str:
    if (middle := row.median(column)) is None:
        return "-"
    return f"{number(middle)} ±{round(50 * row.spread(column))} %"


def geomean(numbers: list[float]) -> float | None:
    return statistics.geometric_mean(numbers) if numbers else None


def table(header: list[str], lines: list[list[str]], markdown: bool) -> str:
    if markdown:
        out = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
        return "\n".join(out + ["| " + " | ".join(line) + " |" for line in lines])
    widths = [max(len(line[i]) for line in [header, *lines]) for i in range(len(header))]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip() for line in [header, *lines])


def save(path: pathlib.Path, rows: list[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=1))
