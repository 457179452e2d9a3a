#!/usr/bin/env python3
"""Tests tools/check-docs on small document trees."""

import pathlib
import subprocess
import tempfile
import unittest

TOOL = pathlib.Path(__file__).resolve().parents[2] / "tools" / "check-docs"


class CheckDocs(unittest.TestCase):
    def run_on(self, text: str) -> tuple[int, str]:
        with tempfile.TemporaryDirectory() as directory:
            root = pathlib.Path(directory)
            for name in ("src/base/bits.h", "tools/check-docs"):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).touch()
            (root / "OTHER.md").write_text("# Other things: all `of` them\n")
            (root / "README.md").write_text(text)
            result = subprocess.run([TOOL, directory], capture_output=True, text=True, check=False)
            return result.returncode, result.stderr

    def assert_clean(self, text):
        self.assertEqual(self.run_on(text), (0, ""))

    def assert_mistake(self, expected, text):
        code, errors = self.run_on(text)
        self.assertEqual(code, 1)
        self.assertIn(expected, errors)

    def test_paths_from_the_root_and_from_src(self):
        self.assert_clean("See `tools/check-docs`, `src/base/bits.h`, `base/bits.h`, `base/`, `src/*/*.h`, `NAME/NAME.h`.")

    def test_missing_path_names_file_and_line(self):
        self.assert_mistake("README.md:2: src/base/gone.h does not exist", "one\ntwo `src/base/gone.h`\n")
        self.assert_mistake("gone/ does not exist", "`gone/`")
        self.assert_mistake("base/*.txt does not exist", "`base/*.txt`")

    def test_file_is_no_folder(self):
        self.assert_mistake("tools/check-docs/ does not exist", "`tools/check-docs/`")

    def test_what_is_no_path_of_the_repository(self):
        self.assert_clean("`/dev/kvm`, `~/.cache`, `build/doppel`, `make x/y`, `a + b/c`, `tcp:80:80/x`, gone/too")

    def test_code_blocks_are_not_looked_at(self):
        self.assert_clean("```\n`gone/file.h` [x](gone.md)\n```\n")
        self.assert_mistake("README.md:4", "```\n`gone/a.h`\n```\n`gone/b.h`\n")

    def test_links(self):
        self.assert_clean("[a](OTHER.md) [b](https://example.org/x) [c](OTHER.md#other-things-all-of-them)")
        self.assert_mistake("GONE.md does not exist", "[a](GONE.md)")
        self.assert_mistake("OTHER.md has no heading #gone", "[a](OTHER.md#gone)")

    def test_links_within_a_document(self):
        self.assert_clean("# First part\n[a](#first-part)")
        self.assert_mistake("README.md has no heading #second", "# First part\n[a](#second)")


if __name__ == "__main__":
    unittest.main()
