// Which extensions a hart supports. What is enabled right now (mstatus.FS, menvcfg, …) is the hart's state.
#pragma once

#include <bitset>
#include <cstddef>
#include <string>
#include <vector>

namespace doppel::riscv {

enum class Extension : unsigned char {
  kI, kM, kA, kF, kD, kC,
  kZicsr, kZifencei, kZihintpause, kZicbom, kZicbop, kZicboz, kZicntr,
  kZba, kZbb, kZbs, kZfhmin,
  kSvinval, kSvnapot, kSvpbmt, kSvadu, kSvvptc, kSstc, kPrivileged,
  kCount,
};

struct IsaConfig {
  std::bitset<static_cast<std::size_t>(Extension::kCount)> extensions;
  unsigned virtual_address_bits = 57;  // the widest satp mode: 39, 48 or 57
  static constexpr unsigned kPhysicalAddressBits = 56;
  static constexpr unsigned kCacheBlockBytes = 64;  // of CBO.*

  bool has(Extension extension) const { return extensions.test(static_cast<std::size_t>(extension)); }

  // RVA22U64 + RVA22S64, with Sv48, Sv57, Svnapot, Svadu, Svvptc, Sstc.
  static IsaConfig rva22();

  // For the device tree: "rv64imafdc_zicsr_…" (riscv,isa), and the names alone (riscv,isa-extensions).
  std::string isa_string() const;
  std::vector<std::string> extension_names() const;
};

}  // namespace doppel::riscv
