#include "machine/riscv/device_tree.h"

#include <libfdt.h>

#include "isa/riscv/hart.h"

namespace doppel::riscv {
namespace {

// U-Boot adds to the tree where it stands when it starts a kernel, and fails when there is no free space.
constexpr std::size_t kFreeBytes = 8 << 10;

std::vector<std::byte> string_list(const std::vector<std::string>& strings) {
  std::vector<std::byte> list;
  for (const std::string& text : strings) {
    const auto* bytes = reinterpret_cast<const std::byte*>(text.c_str());
    list.insert(list.end(), bytes, bytes + text.size() + 1);
  }
  return list;
}

}  // namespace

// Linux, Documentation/devicetree/bindings/riscv/{cpus,extensions}.yaml.
void describe_harts(FdtBuilder& fdt, const IsaConfig& isa, MachineFirmware firmware,
                    std::span<const Phandle> controllers) {
  std::string isa_string = isa.isa_string();
  std::vector<std::string> extensions = isa.extension_names();
  if (firmware == MachineFirmware::kExternal && isa.has(Extension::kSvadu)) {
    isa_string += "_svade";
    extensions.emplace_back("svade");
  }
  const std::string mmu_type = "riscv,sv" + std::to_string(isa.virtual_address_bits);

  const auto cpus = fdt.node("cpus");
  fdt.cells("#address-cells", {1});
  fdt.cells("#size-cells", {0});
  fdt.cells("timebase-frequency", {static_cast<std::uint32_t>(kTimebaseHz)});
  for (std::uint32_t id = 0; id < controllers.size(); ++id) {
    const auto cpu = fdt.node("cpu", id);
    fdt.text("device_type", "cpu");
    fdt.cells("reg", {id});
    fdt.text("status", "okay");
    fdt.text("compatible", "riscv");
    fdt.text("riscv,isa", isa_string);
    fdt.text("riscv,isa-base", "rv64i");
    fdt.bytes("riscv,isa-extensions", string_list(extensions));
    fdt.text("mmu-type", mmu_type);
    if (isa.has(Extension::kZicbom)) fdt.cells("riscv,cbom-block-size", {IsaConfig::kCacheBlockBytes});
    if (isa.has(Extension::kZicboz)) fdt.cells("riscv,cboz-block-size", {IsaConfig::kCacheBlockBytes});
    const auto controller = fdt.node("interrupt-controller");
    fdt.cells("#interrupt-cells", {1});
    fdt.flag("interrupt-controller");
    fdt.text("compatible", "riscv,cpu-intc");
    fdt.cells("phandle", {controllers[id]});
  }
}

Result<std::vector<std::byte>> with_chosen(std::vector<std::byte> tree, const std::string& name,
                                           const Chosen& chosen) {
  if (::fdt_check_full(tree.data(), tree.size()) != 0) return fail("{}: not a flattened device tree", name);

  std::vector<std::byte> amended(tree.size() + chosen.bootargs.size() + kFreeBytes);
  void* fdt = amended.data();
  int node = -1;
  const auto set = [&](const char* property, std::span<const std::byte> value) {
    return ::fdt_setprop(fdt, node, property, value.data(), static_cast<int>(value.size()));
  };
  const auto set_address = [&](const char* property, GuestPhysical gpa) {
    return ::fdt_setprop_u64(fdt, node, property, gpa.value);
  };
  const auto amend = [&]() -> int {
    if (const int error = ::fdt_open_into(tree.data(), fdt, static_cast<int>(amended.size()))) return error;
    node = ::fdt_path_offset(fdt, "/chosen");
    if (node == -FDT_ERR_NOTFOUND) node = ::fdt_add_subnode(fdt, 0, "chosen");
    if (node < 0) return node;
    const std::string& bootargs = chosen.bootargs;
    int error = 0;
    // Property values are zero-terminated strings.
    if (!bootargs.empty()) error = set("bootargs", std::as_bytes(std::span(bootargs.c_str(), bootargs.size() + 1)));
    if (error == 0 && chosen.initrd) error = set_address("linux,initrd-start", chosen.initrd->start);
    if (error == 0 && chosen.initrd) error = set_address("linux,initrd-end", chosen.initrd->end());
    if (error == 0) error = set("rng-seed", chosen.rng_seed);
    return error;
  };
  if (const int error = amend()) return fail("{}: cannot be amended: {}", name, ::fdt_strerror(error));
  return amended;
}

}  // namespace doppel::riscv
