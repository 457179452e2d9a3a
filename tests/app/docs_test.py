#!/usr/bin/env python3
"""Holds the man page and the shell completions to the options that the help of `doppel boot`, `doppel run` and
`doppel binfmt` lists.

Usage: docs_test.py DOPPEL
"""
import pathlib
import re
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOPPEL = sys.argv.pop(1)


def options_in(text):
    return set(re.findall(r"(?<![\w-])--([a-z][a-z-]*)", text)) - {"help", "version"}


class Docs(unittest.TestCase):
    def setUp(self):
        self.options = set()
        for command in "boot", "run", "binfmt":
            help_text = subprocess.run([DOPPEL, command, "--help"], capture_output=True, text=True, check=True).stdout
            self.options |= options_in(help_text.split("Exit status")[0])

    def test_help_lists_options(self):
        self.assertIn("memory", self.options)

    def test_man_page(self):
        page = (ROOT / "docs/man/doppel.1").read_text().replace("\\-", "-")
        self.assertEqual(options_in(page), self.options)

    def test_completions(self):
        for name in ("doppel.bash", "_doppel"):
            with self.subTest(name):
                text = (ROOT / "docs/completions" / name).read_text()
                self.assertEqual(options_in(text), self.options)


unittest.main()
