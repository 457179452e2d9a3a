#include "device/syscon/syscon.h"

namespace doppel {

namespace {

// The finisher's register: what to do in the low half, an exit code for kFail in the high half.
constexpr std::uint16_t kPass = 0x5555;
constexpr std::uint16_t kFail = 0x3333;
constexpr std::uint16_t kReset = 0x7777;

}  // namespace

void Syscon::write(Offset offset, Width width, std::uint64_t value) {
  if (offset.value != 0 || (width != Width::k2 && width != Width::k4)) return;
  switch (static_cast<std::uint16_t>(value)) {
    case kPass: return request_({PowerRequest::Action::kPowerOff, 0});
    case kFail: return request_({PowerRequest::Action::kPowerOff, static_cast<std::uint16_t>(value >> 16)});
    case kReset: return request_({PowerRequest::Action::kReset, 0});
    default: return;
  }
}

// The nodes that name the register stand beside it: drivers find them by their compatible strings.
void Syscon::describe(FdtBuilder& fdt, const Placement& placement) const {
  {
    const auto node = fdt.node("test", placement.range.start.value);
    fdt.texts("compatible", {"sifive,test1", "sifive,test0", "syscon"});
    fdt.reg(placement.range);
    fdt.cells("phandle", {placement.self});
  }
  const auto control = [&](const char* name, const char* compatible, std::uint32_t value) {
    const auto node = fdt.node(name);
    fdt.text("compatible", compatible);
    fdt.cells("regmap", {placement.self});
    fdt.cells("offset", {0});
    fdt.cells("value", {value});
  };
  control("poweroff", "syscon-poweroff", kPass);
  control("reboot", "syscon-reboot", kReset);
}

}  // namespace doppel
