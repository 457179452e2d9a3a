#include "isa/riscv/isa_config.h"

#include <array>
#include <string_view>
#include <utility>

namespace doppel::riscv {
namespace {

// In the canonical order of the ISA naming chapter.
constexpr std::array<std::pair<Extension, std::string_view>, 23> kNames{{
    {Extension::kI, "i"},           {Extension::kM, "m"},
    {Extension::kA, "a"},           {Extension::kF, "f"},
    {Extension::kD, "d"},           {Extension::kC, "c"},
    {Extension::kZicbom, "zicbom"}, {Extension::kZicbop, "zicbop"},
    {Extension::kZicboz, "zicboz"}, {Extension::kZicntr, "zicntr"},
    {Extension::kZicsr, "zicsr"},   {Extension::kZifencei, "zifencei"},
    {Extension::kZihintpause, "zihintpause"}, {Extension::kZfhmin, "zfhmin"},
    {Extension::kZba, "zba"},       {Extension::kZbb, "zbb"},
    {Extension::kZbs, "zbs"},       {Extension::kSstc, "sstc"},
    {Extension::kSvadu, "svadu"},   {Extension::kSvinval, "svinval"},
    {Extension::kSvnapot, "svnapot"}, {Extension::kSvpbmt, "svpbmt"},
    {Extension::kSvvptc, "svvptc"},
}};

}  // namespace

IsaConfig IsaConfig::rva22() {
  IsaConfig config;
  config.extensions.set();
  return config;
}

std::vector<std::string> IsaConfig::extension_names() const {
  std::vector<std::string> names;
  for (const auto& [extension, name] : kNames) {
    if (has(extension)) names.emplace_back(name);
  }
  return names;
}

std::string IsaConfig::isa_string() const {
  std::string text = "rv64";
  for (const auto& [extension, name] : kNames) {
    if (!has(extension)) continue;
    if (name.size() > 1) text += '_';
    text += name;
  }
  return text;
}

}  // namespace doppel::riscv
