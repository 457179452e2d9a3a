#include "machine/riscv/boot.h"

#include <sys/random.h>

#include <algorithm>
#include <array>

#include "base/bits.h"
#include "machine/boot/file.h"
#include "machine/riscv/device_tree.h"
#include "machine/riscv/program.h"

namespace doppel::riscv {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;
// Kernels map their first pages with 2 MiB leaves; the room below belongs to the firmware.
constexpr std::uint64_t kKernelOffset = 2 * kMiB;
constexpr std::uint64_t kInitrdDistance = 128 * kMiB;  // leaves a kernel room to expand itself
// Old kernels and loaders keep the tree in a 32-bit, signed or PCI-free place: below 3 GiB.
constexpr GuestPhysical kTreeLimit{3072 * kMiB};
constexpr std::uint64_t kTreeLimitBytes = kMiB;
constexpr std::uint64_t kTreeSlackBytes = 16 << 10;  // firmware grows the tree where it stands

// OpenSBI, include/sbi/fw_dynamic.h, version 2: what fw_dynamic firmware finds at a2.
struct FirmwareDynamicInfo {
  std::uint64_t magic = 0x4942534f;  // "OSBI"
  std::uint64_t version = 2;
  std::uint64_t next_address = 0;
  std::uint64_t next_mode = 1;  // supervisor
  std::uint64_t options = 0;
  std::uint64_t boot_hart = 0;
};

// Reserves places from the files' sizes, bottom up and top down, and notices what does not fit.
class Layout {
 public:
  explicit Layout(const GuestMemory& memory) : memory_(memory) {}

  Result<void> add(const std::string& name, GuestPhysicalRange range) {
    if (memory_.host(range.start, range.size_bytes) == nullptr) {
      return fail("{}: needs memory from {:#x} to {:#x}; the machine has {} MiB from {:#x} to {:#x}", name,
                  range.start.value, range.end().value, memory_.size_bytes() / kMiB, ram().start.value,
                  ram().end().value);
    }
    for (const auto& part : parts_) {
      if (part.range.overlaps(range)) {
        return fail("{} ({:#x} to {:#x}) does not fit beside {} ({:#x} to {:#x}) in the machine's {} MiB of memory",
                    name, range.start.value, range.end().value, part.name, part.range.start.value,
                    part.range.end().value, memory_.size_bytes() / kMiB);
      }
    }
    parts_.push_back({name, range});
    return {};
  }

  bool is_free(GuestPhysicalRange range) const {
    return memory_.host(range.start, range.size_bytes) != nullptr &&
           std::ranges::none_of(parts_, [&](const Part& part) { return part.range.overlaps(range); });
  }

  GuestPhysicalRange ram() const { return memory_.regions().front().range; }

 private:
  struct Part {
    std::string name;
    GuestPhysicalRange range;
  };
  const GuestMemory& memory_;
  std::vector<Part> parts_;
};

Result<GuestPhysicalRange> place_initrd(const std::string& path, const GuestMemory& memory, Layout& layout,
                                        const std::optional<Program>& kernel) {
  const auto file = BootFile::open(path, memory.size_bytes());
  if (!file) return std::unexpected(file.error());
  const GuestPhysical kernel_start = kernel ? kernel->extent.start : layout.ram().start;
  const GuestPhysical kernel_end = kernel ? kernel->extent.end() : layout.ram().start;

  const auto at = [&](GuestPhysical start) {
    return GuestPhysicalRange{{align_up(start.value, std::uint64_t{kPageSize})}, file->size_bytes()};
  };
  GuestPhysicalRange range = at(kernel_start + std::min(kInitrdDistance, memory.size_bytes() / 2));
  if (!layout.is_free(range)) range = at(kernel_end);
  if (auto added = layout.add(path, range); !added) return std::unexpected(added.error());
  // The layout has only what is RAM.
  const std::span<std::byte> place(memory.host(range.start, range.size_bytes), range.size_bytes);
  if (auto read = file->read_into(0, place); !read) return std::unexpected(read.error());
  return range;
}

Result<std::vector<std::byte>> make_tree(const BootConfig& config,
                                         const std::function<std::vector<std::byte>()>& device_tree,
                                         const std::optional<GuestPhysicalRange>& initrd) {
  Chosen chosen{config.append, initrd, {}};
  if (::getrandom(chosen.rng_seed.data(), chosen.rng_seed.size(), 0) < 0) return fail_errno(errno, "no random numbers");
  if (config.device_tree.empty()) return with_chosen(device_tree(), "the board's device tree", chosen);
  auto file = BootFile::open(config.device_tree, kTreeLimitBytes);
  if (!file) return std::unexpected(file.error());
  const auto bytes = file->bytes();
  if (!bytes) return std::unexpected(bytes.error());
  return with_chosen({bytes->begin(), bytes->end()}, config.device_tree, chosen);
}

}  // namespace

Result<StartState> load_boot_files(const BootConfig& config, const GuestMemory& memory,
                                   const std::function<std::vector<std::byte>()>& device_tree) {
  Layout layout(memory);
  const GuestPhysical ram = layout.ram().start;
  const bool builtin = config.firmware == "builtin";
  const bool has_firmware = !builtin && config.firmware != "none";

  const auto load = [&](const std::string& path, const LoadRules& rules) -> Result<Program> {
    auto file = BootFile::open(path, rules.limit_bytes);
    if (!file) return std::unexpected(file.error());
    auto program = parse_program(std::move(*file), rules);
    if (!program) return program;
    if (auto added = layout.add(path, program->extent); !added) return std::unexpected(added.error());
    if (auto placed = place(*program, memory); !placed) return std::unexpected(placed.error());
    return program;
  };

  std::optional<Program> firmware;
  if (has_firmware) {
    auto loaded = load(config.firmware, {ram, ram, RawBinary::kAccept, memory.size_bytes()});
    if (!loaded) return std::unexpected(loaded.error());
    firmware = std::move(*loaded);
  }
  std::optional<Program> kernel;
  if (!config.kernel.empty()) {
    const GuestPhysical raw_base = config.firmware == "none" ? ram : ram + kKernelOffset;
    const auto raw = builtin && !config.kernel_may_be_raw ? RawBinary::kRefuse : RawBinary::kAccept;
    auto loaded = load(config.kernel, {raw_base, ram, raw, memory.size_bytes()});
    if (!loaded) return std::unexpected(loaded.error());
    kernel = std::move(*loaded);
  } else if (!has_firmware) {
    return fail("nothing to boot: neither a kernel nor a firmware file is given");
  }

  // The tree goes last into memory, for it names the initrd's place; its own place is kept free first.
  const GuestPhysical ram_end = layout.ram().end();
  const std::uint64_t tree_alignment = memory.size_bytes() >= 64 * kMiB ? 2 * kMiB : kPageSize;
  const auto reserve = make_tree(config, device_tree, GuestPhysicalRange{});
  if (!reserve) return std::unexpected(reserve.error());
  const std::uint64_t tree_bytes = align_up(reserve->size() + kTreeSlackBytes + sizeof(FirmwareDynamicInfo),
                                            std::uint64_t{kPageSize});
  const std::uint64_t tree_end = std::min(ram_end, kTreeLimit).value;
  const GuestPhysicalRange tree_range{{align_down(tree_end - tree_bytes, tree_alignment)}, tree_bytes};
  if (auto added = layout.add("the device tree", tree_range); !added) return std::unexpected(added.error());

  std::optional<GuestPhysicalRange> initrd;
  if (!config.initrd.empty()) {
    const auto placed = place_initrd(config.initrd, memory, layout, kernel);
    if (!placed) return std::unexpected(placed.error());
    initrd = *placed;
  }
  const auto tree = make_tree(config, device_tree, initrd);
  if (!tree) return std::unexpected(tree.error());
  if (!memory.write(tree_range.start, *tree)) return fail("the device tree cannot be loaded");

  StartState start;
  start.supervisor = builtin;
  start.a1 = tree_range.start.value;
  if (kernel) start.tohost = kernel->tohost;
  start.pc = firmware ? firmware->entry.value : kernel->entry.value;
  if (firmware) {
    FirmwareDynamicInfo info;
    if (kernel) info.next_address = kernel->entry.value;
    const GuestPhysical info_at = tree_range.end() - sizeof info;
    if (!memory.write(info_at, std::as_bytes(std::span(&info, 1)))) return fail("no room for the firmware's parameters");
    start.a2 = info_at.value;
  }
  return start;
}

}  // namespace doppel::riscv
