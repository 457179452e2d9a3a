// Reads a finished device tree back, by libfdt's read-only half.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <gtest/gtest.h>

extern "C" {
#include <libfdt.h>
}

#include "device/device.h"

namespace doppel::test {

class FdtView {
 public:
  explicit FdtView(std::vector<std::byte> blob) : blob_(std::move(blob)) {
    EXPECT_EQ(fdt_check_full(blob_.data(), blob_.size()), 0);
  }

  bool has(const std::string& path) const { return fdt_path_offset(blob_.data(), path.c_str()) >= 0; }
  bool has(const std::string& path, const char* property) const {
    return fdt_getprop(blob_.data(), fdt_path_offset(blob_.data(), path.c_str()), property, nullptr) != nullptr;
  }

  std::string bytes(const std::string& path, const char* property) const {
    int size = 0;
    const void* value = fdt_getprop(blob_.data(), fdt_path_offset(blob_.data(), path.c_str()), property, &size);
    EXPECT_NE(value, nullptr) << path << " has no " << property;
    return value == nullptr ? "" : std::string(static_cast<const char*>(value), static_cast<std::size_t>(size));
  }

  std::vector<std::uint32_t> cells(const std::string& path, const char* property) const {
    const std::string raw = bytes(path, property);
    std::vector<std::uint32_t> values(raw.size() / 4);
    for (std::size_t i = 0; i < raw.size() / 4 * 4; ++i) {
      values[i / 4] = values[i / 4] << 8 | static_cast<std::uint8_t>(raw[i]);
    }
    return values;
  }

  // A string list, its parts joined by blanks: "sifive,test1 sifive,test0".
  std::string texts(const std::string& path, const char* property) const {
    std::string raw = bytes(path, property);
    EXPECT_TRUE(!raw.empty() && raw.back() == '\0');
    if (!raw.empty()) raw.pop_back();
    for (char& c : raw) c = c == '\0' ? ' ' : c;
    return raw;
  }

 private:
  std::vector<std::byte> blob_;
};

// The tree that holds nothing but what `device` says of itself.
inline FdtView describe(const Device& device, const Placement& placement) {
  FdtBuilder fdt;
  fdt.cells("#address-cells", {2});
  fdt.cells("#size-cells", {2});
  device.describe(fdt, placement);
  return FdtView(fdt.finish());
}

using Cells = std::vector<std::uint32_t>;

}  // namespace doppel::test
