#!/usr/bin/env python3
"""Tests tools/check-layers on small source trees."""

import pathlib
import subprocess
import tempfile
import unittest

TOOL = pathlib.Path(__file__).resolve().parents[2] / "tools" / "check-layers"

LAYERS = """
[layers]
base = []
device = ["base"]
"isa/common" = ["base"]
"isa/riscv" = ["isa/common", "base"]
hypervisor = ["device/virtio"]
app = ["*"]
"""


class CheckLayers(unittest.TestCase):
    def run_on(self, files: dict[str, str], layers: str = LAYERS) -> tuple[int, str]:
        with tempfile.TemporaryDirectory() as directory:
            source = pathlib.Path(directory)
            (source / "layers.toml").write_text(layers)
            for name, text in files.items():
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                (source / name).write_text(text)
            result = subprocess.run([TOOL, directory], capture_output=True, text=True, check=False)
            return result.returncode, result.stderr

    def assert_clean(self, files, layers=LAYERS):
        self.assertEqual(self.run_on(files, layers), (0, ""))

    def assert_violation(self, expected, files, layers=LAYERS):
        code, errors = self.run_on(files, layers)
        self.assertEqual(code, 1)
        self.assertIn(expected, errors)

    def test_own_folder_and_listed_folders(self):
        self.assert_clean({"base/bits.h": "#include <cstdint>\n",
                           "device/bus.h": '#include "base/bits.h"\n',
                           "device/plic/plic.cpp": '#include "device/bus.h"\n#include "base/bits.h"\n'})

    def test_unlisted_folder_names_file_and_line(self):
        self.assert_violation("src/base/bits.h:2: base may not include device/bus.h",
                              {"base/bits.h": '\n  #  include "device/bus.h"\n', "device/bus.h": ""})

    def test_not_transitive(self):
        self.assert_violation("hypervisor may not include base/bits.h",
                              {"base/bits.h": "", "hypervisor/main.cpp": '#include "base/bits.h"\n'})

    def test_siblings_are_apart(self):
        self.assert_violation("isa/common may not include isa/riscv/hart.h",
                              {"isa/riscv/hart.h": "", "isa/common/isa.h": '#include "isa/riscv/hart.h"\n'})

    def test_part_of_a_folder(self):
        files = {"device/virtio/queue.h": "", "device/bus.h": "",
                 "hypervisor/main.cpp": '#include "device/virtio/queue.h"\n'}
        self.assert_clean(files)
        files["hypervisor/main.cpp"] = '#include "device/bus.h"\n'
        self.assert_violation("hypervisor may not include device/bus.h", files)

    def test_everything(self):
        self.assert_clean({"device/bus.h": "", "app/main.cpp": '#include "device/bus.h"\n'})

    def test_unknown_folder_relative_path_and_missing_file(self):
        self.assert_violation("src/stray/a.cpp: its folder", {"stray/a.cpp": ""})
        self.assert_violation("is not a path from src/", {"base/a.cpp": '#include "bits.h"\n', "base/bits.h": ""})
        self.assert_violation("does not exist", {"base/a.cpp": '#include "base/gone.h"\n'})

    def test_exceptions_last_as_long_as_they_are_used(self):
        layers = LAYERS + '[exceptions]\nbase = ["device"]\n'
        files = {"device/bus.h": "", "base/a.cpp": '#include "device/bus.h"\n'}
        self.assert_clean(files, layers)
        files["base/a.cpp"] = ""
        self.assert_violation("remove the exception", files, layers)


if __name__ == "__main__":
    unittest.main()
