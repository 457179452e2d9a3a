#include "machine/riscv/virt.h"

#include <algorithm>
#include <array>

#include "device/aclint/aclint.h"
#include "device/bus.h"
#include "device/fdt.h"
#include "device/goldfish_rtc/goldfish_rtc.h"
#include "device/plic/plic.h"
#include "device/syscon/syscon.h"
#include "device/uart16550/uart16550.h"
#include "device/virtio/blk/virtio_blk.h"
#include "device/virtio/console/virtio_console.h"
#include "device/virtio/entropy/virtio_entropy.h"
#include "device/virtio/net/virtio_net.h"
#include "device/virtio/virtio_mmio.h"
#include "engine/hart_thread.h"
#include "engine/kept_code.h"
#include "isa/riscv/hart.h"
#include "machine/riscv/boot.h"
#include "machine/riscv/debug_harts.h"
#include "machine/riscv/device_tree.h"
#include "machine/riscv/htif.h"
#include "machine/riscv/sbi.h"

namespace doppel::riscv {
namespace {

// The memory map and interrupt numbers of QEMU's virt board, to which stock software is built.
constexpr GuestPhysical kRam{0x8000'0000};
constexpr GuestPhysicalRange kSysconRange{{0x10'0000}, Syscon::kSizeBytes};
constexpr GuestPhysicalRange kRtcRange{{0x10'1000}, GoldfishRtc::kSizeBytes};
constexpr GuestPhysicalRange kAclintRange{{0x200'0000}, Aclint::kSizeBytes};
constexpr GuestPhysicalRange kPlicRange{{0xc00'0000}, Plic::kSizeBytes};
constexpr GuestPhysicalRange kUartRange{{0x1000'0000}, Uart16550::kSizeBytes};
constexpr GuestPhysicalRange kFirstVirtioRange{{0x1000'1000}, VirtioMmio::kSizeBytes};
constexpr unsigned kVirtioSlots = 8, kFirstVirtioIrq = 1;
constexpr unsigned kInterruptSources = 96;
constexpr unsigned kUartIrq = 10, kRtcIrq = 11;

// Numbers in the device tree; hart i's interrupt controller is kFirstHart + i.
constexpr Phandle kPlicPhandle = 1, kSysconPhandle = 2, kFirstHartPhandle = 3;

constexpr std::array kInterruptNames = {
    "", "supervisor_software_interrupt", "", "machine_software_interrupt",
    "", "supervisor_timer_interrupt", "", "machine_timer_interrupt",
    "", "supervisor_external_interrupt", "", "machine_external_interrupt",
    "", "", "", ""};

// Members are destroyed from the last to the first: harts stop before devices go, and devices before the RAM
// and the clock that they use.
class VirtBoard final : public Machine {
 public:
  static Result<std::unique_ptr<Machine>> make(const MachineConfig& config, const MachineEnv& env);

  ~VirtBoard() override { halt(); }

  void start() override;
  void pause() override;
  void resume() override;
  void stop() override { conclude({Outcome::Kind::kStopped}); }
  std::unique_ptr<debug::Target> debug_target(std::function<void()> kill) override;
  MachineStatistics statistics() const override;

 private:
  VirtBoard(const MachineConfig& config, const MachineEnv& env);

  Result<void> build();
  void make_harts();
  Result<void> make_threads();
  void make_devices();
  Result<void> make_virtio_devices();
  void add_virtio(std::unique_ptr<VirtioDevice> device);
  Result<void> load();
  template <class D, class... Args>
  D& add_device(GuestPhysicalRange range, unsigned irq, Phandle self, Args&&... args);
  DeviceEnv device_env(unsigned irq);
  std::vector<std::byte> device_tree() const;
  void request_power(PowerRequest request);
  void conclude(Outcome outcome);
  void halt();

  struct Placed {
    std::unique_ptr<Device> device;
    GuestPhysicalRange range;
    unsigned irq;
    Phandle self;
  };

  const MachineConfig config_;
  const MachineEnv env_;
  // Expires with the machine: what was posted to the loop looks before it calls.
  const std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  bool concluded_ = false;
  bool debugged_ = false;

  GuestMemory memory_;
  VirtualClock clock_;
  Bus bus_;
  std::vector<Hart*> hart_pointers_;
  std::optional<Sbi> sbi_;
  std::vector<std::unique_ptr<VirtualTimer>> hart_timers_;
  std::vector<std::unique_ptr<Hart>> harts_;
  std::vector<Placed> devices_;
  Plic* plic_ = nullptr;
  std::vector<VirtioMmio*> virtio_;  // those of devices_, in slot order
  std::optional<Htif> htif_;
  MachineCode kept_code_;
  std::unique_ptr<Background> background_;  // may be null; it ends after the harts that use it
  std::vector<std::unique_ptr<HartThread>> threads_;
};

VirtBoard::VirtBoard(const MachineConfig& config, const MachineEnv& env) : config_(config), env_(env) {
  clock_.pause();
}

Result<std::unique_ptr<Machine>> VirtBoard::make(const MachineConfig& config, const MachineEnv& env) {
  std::unique_ptr<VirtBoard> board(new VirtBoard(config, env));
  if (auto built = board->build(); !built) return std::unexpected(built.error());
  return board;
}

Result<void> VirtBoard::build() {
  if (auto added = memory_.add_ram({kRam, config_.memory_bytes}); !added) return added;
  memory_.populate_ahead();
  make_harts();
  make_devices();
  if (auto made = make_virtio_devices(); !made) return made;
  for (const Placed& placed : devices_) {
    if (auto mapped = bus_.map(placed.range, *placed.device); !mapped) return mapped;
  }
  if (auto made = make_threads(); !made) return made;
  return load();
}

Result<void> VirtBoard::make_threads() {
  std::shared_ptr<TranslationLog> log;
  if (config_.trace.any()) {
    auto created = TranslationLog::create(config_.trace, harts_.front()->isa());
    if (!created) return std::unexpected(created.error());
    log = std::move(*created);
  }
  // A trace is to show the translations themselves.
  const bool keeps = config_.engine == EngineKind::kTranslate && log == nullptr && config_.passes == PassSet::all();
  if (config_.code_folder >= 0 && keeps) {
    kept_code_ = open_machine_code(config_.code_folder, harts_.front()->isa().isa_string());
  }
  background_ = make_background();
  for (const auto& hart : harts_) {
    Result<std::unique_ptr<Engine>> engine =
        make_engine(config_.engine, *hart, {log, kept_code_, config_.passes, background_.get()});
    if (!engine) return std::unexpected(engine.error());
    threads_.push_back(std::make_unique<HartThread>(*hart, std::move(*engine)));
  }
  return {};
}

static IsaConfig isa_of(const MachineConfig& config) {
  IsaConfig isa = IsaConfig::rva22();
  isa.virtual_address_bits = config.address_bits;
  return isa;
}

void VirtBoard::make_harts() {
  hart_pointers_.resize(config_.harts);
  if (config_.boot.firmware == "builtin") {
    sbi_.emplace(SbiEnv{hart_pointers_, memory_, bus_, kUartRange.start,
                        [this](PowerRequest request) { request_power(request); }},
                 config_.harts);
  }
  for (unsigned id = 0; id < config_.harts; ++id) {
    auto& timer = hart_timers_.emplace_back(
        std::make_unique<VirtualTimer>(env_.loop, clock_, [this, id] { harts_[id]->wake(); }));
    const HartEnv hart_env{memory_, bus_, clock_, [&timer = *timer](auto at) { timer.arm(at); },
                           sbi_ ? &*sbi_ : nullptr};
    harts_.push_back(std::make_unique<Hart>(id, isa_of(config_), hart_env));
    hart_pointers_[id] = harts_[id].get();
  }
}

// Interrupt controllers come first: other devices drive their lines as they are made.
void VirtBoard::make_devices() {
  const auto line = [this](unsigned id, Interrupt interrupt) {
    return InterruptLine([hart = harts_[id].get(), interrupt](bool level) { hart->set_interrupt(interrupt, level); });
  };
  std::vector<InterruptLine> contexts;
  std::vector<Aclint::HartLines> local;
  for (unsigned id = 0; id < config_.harts; ++id) {
    contexts.push_back(line(id, Interrupt::kMachineExternal));
    contexts.push_back(line(id, Interrupt::kSupervisorExternal));
    local.push_back({line(id, Interrupt::kMachineSoftware), line(id, Interrupt::kMachineTimer)});
  }
  plic_ = &add_device<Plic>(kPlicRange, 0, kPlicPhandle, kInterruptSources, std::move(contexts));
  add_device<Aclint>(kAclintRange, 0, 0, device_env(0), std::move(local));
  add_device<Syscon>(kSysconRange, 0, kSysconPhandle, [this](PowerRequest request) { request_power(request); });
  add_device<GoldfishRtc>(kRtcRange, kRtcIrq, 0, device_env(kRtcIrq));
  add_device<Uart16550>(kUartRange, kUartIrq, 0, device_env(kUartIrq), env_.console);
}

Result<void> VirtBoard::make_virtio_devices() {
  const unsigned others = env_.virtio_console != nullptr ? 2 : 1;  // a console, and the entropy device
  if (config_.disks.size() + config_.networks.size() + others > kVirtioSlots) {
    return fail("{} disks and {} network cards are too many: the board has room for {}", config_.disks.size(),
                config_.networks.size(), kVirtioSlots - others);
  }
  for (const DiskOptions& options : config_.disks) {
    auto disk = open_disk(options, env_.loop);
    if (!disk) return std::unexpected(disk.error());
    add_virtio(std::make_unique<VirtioBlk>(std::move(*disk), options.serial));
  }
  std::uint8_t card = 0;
  for (const NetworkOptions& options : config_.networks) {
    auto network = open_network(options, env_.loop);
    if (!network) return std::unexpected(network.error());
    add_virtio(std::make_unique<VirtioNet>(std::move(*network), options.mac.value_or(MacAddress::local(card++))));
  }
  add_virtio(std::make_unique<VirtioEntropy>());
  if (env_.virtio_console != nullptr) add_virtio(std::make_unique<VirtioConsole>(*env_.virtio_console));
  return {};
}

void VirtBoard::add_virtio(std::unique_ptr<VirtioDevice> device) {
  const auto slot = static_cast<unsigned>(virtio_.size());
  const GuestPhysicalRange range{kFirstVirtioRange.start + slot * kFirstVirtioRange.size_bytes,
                                 kFirstVirtioRange.size_bytes};
  const unsigned irq = kFirstVirtioIrq + slot;
  virtio_.push_back(&add_device<VirtioMmio>(range, irq, 0, device_env(irq), std::move(device)));
}

template <class D, class... Args>
D& VirtBoard::add_device(GuestPhysicalRange range, unsigned irq, Phandle self, Args&&... args) {
  auto device = std::make_unique<D>(std::forward<Args>(args)...);
  D& reference = *device;
  devices_.push_back({std::move(device), range, irq, self});
  return reference;
}

DeviceEnv VirtBoard::device_env(unsigned irq) {
  return {memory_, irq == 0 ? InterruptLine() : plic_->line(irq), env_.loop, clock_};
}

Result<void> VirtBoard::load() {
  const auto start = load_boot_files(config_.boot, memory_, [this] { return device_tree(); });
  if (!start) return std::unexpected(start.error());
  if (start->supervisor) {
    sbi_->boot(0, start->pc, start->a1);
  } else {
    for (const auto& hart : harts_) {
      hart->reset(start->pc);
      hart->state().x[10] = hart->id();
      hart->state().x[11] = start->a1;
      hart->state().x[12] = start->a2;
    }
  }
  if (start->tohost) {
    htif_.emplace(*start->tohost, memory_, env_.loop, env_.console, [this](std::uint64_t code) {
      conclude({code == 0 ? Outcome::Kind::kPowerOff : Outcome::Kind::kExitCode,
                static_cast<int>(std::min<std::uint64_t>(code, 255))});
    });
  }
  return {};
}

std::vector<std::byte> VirtBoard::device_tree() const {
  std::vector<Phandle> controllers;
  for (unsigned id = 0; id < config_.harts; ++id) controllers.push_back(kFirstHartPhandle + id);

  FdtBuilder fdt;
  fdt.cells("#address-cells", {2});
  fdt.cells("#size-cells", {2});
  fdt.text("compatible", "riscv-virtio");
  fdt.text("model", "riscv-virtio,doppel");
  {
    const auto chosen = fdt.node("chosen");
    fdt.text("stdout-path", "/soc/serial@10000000");
  }
  {
    const auto memory = fdt.node("memory", kRam.value);
    fdt.text("device_type", "memory");
    fdt.reg({kRam, config_.memory_bytes});
  }
  describe_harts(fdt, harts_.front()->isa(), sbi_ ? MachineFirmware::kBuiltin : MachineFirmware::kExternal, controllers);
  {
    const auto soc = fdt.node("soc");
    fdt.cells("#address-cells", {2});
    fdt.cells("#size-cells", {2});
    fdt.text("compatible", "simple-bus");
    fdt.flag("ranges");
    for (const Placed& placed : devices_) {
      placed.device->describe(fdt, {placed.range, placed.irq, kPlicPhandle, placed.self, controllers});
    }
  }
  return fdt.finish();
}

void VirtBoard::start() {
  if (!debugged_) clock_.resume();
  for (const auto& thread : threads_) thread->start();
}

void VirtBoard::pause() {
  for (const auto& thread : threads_) thread->pause();
  clock_.pause();
}

void VirtBoard::resume() {
  clock_.resume();
  for (const auto& thread : threads_) thread->resume();
}

// On a hart's thread, which cannot wait for itself: the loop ends the machine. Of several requests the first
// counts.
void VirtBoard::request_power(PowerRequest request) {
  Outcome outcome;
  if (request.action == PowerRequest::Action::kReset) {
    outcome.kind = Outcome::Kind::kReset;
  } else if (request.exit_code != 0) {
    outcome = {Outcome::Kind::kExitCode, std::min<int>(request.exit_code, 255)};
  }
  env_.loop.post([this, outcome, alive = std::weak_ptr(alive_)] {
    if (!alive.expired()) conclude(outcome);
  });
}

void VirtBoard::conclude(Outcome outcome) {
  if (std::exchange(concluded_, true)) return;
  halt();
  env_.ended(outcome);
}

void VirtBoard::halt() {
  for (const auto& thread : threads_) thread->stop();
  for (VirtioMmio* device : virtio_) device->drain();
  write_machine_code(kept_code_);
}

std::unique_ptr<debug::Target> VirtBoard::debug_target(std::function<void()> kill) {
  debugged_ = true;
  return std::make_unique<DebugHarts>(
      DebugHartsEnv{hart_pointers_, threads_, memory_, clock_, env_.loop, std::move(kill)});
}

MachineStatistics VirtBoard::statistics() const {
  MachineStatistics statistics;
  statistics.engine = threads_.empty() ? "" : threads_.front()->engine().name();
  std::array<std::uint64_t, 16> exceptions{}, interrupts{};
  std::uint64_t waits = 0;
  for (const auto& hart : harts_) {
    const Hart::Statistics& counts = hart->statistics();
    statistics.harts.push_back({hart->state().instructions, counts.waits});
    waits += counts.waits;
    for (std::size_t cause = 0; cause < exceptions.size(); ++cause) {
      exceptions[cause] += counts.exceptions[cause];
      interrupts[cause] += counts.interrupts[cause];
    }
  }
  for (const auto& thread : threads_) statistics.translation += thread->engine().statistics();
  statistics.exits.push_back({"wait_for_interrupt", waits});
  if (statistics.translation.steps != 0) {
    statistics.exits.push_back({"interpreted_instruction", statistics.translation.steps});
    statistics.exits.push_back({"link", statistics.translation.links});
  }
  for (std::size_t cause = 0; cause < exceptions.size(); ++cause) {
    if (exceptions[cause] != 0) statistics.traps.push_back({riscv::kExceptionNames[cause], exceptions[cause]});
    if (interrupts[cause] != 0) statistics.traps.push_back({kInterruptNames[cause], interrupts[cause]});
  }
  return statistics;
}

}  // namespace

Result<std::unique_ptr<Machine>> make_virt_machine(const MachineConfig& config, const MachineEnv& env) {
  if (config.harts == 0 || config.harts > kMaxHarts) {
    return fail("a machine has 1 to {} harts, not {}", kMaxHarts, config.harts);
  }
  return VirtBoard::make(config, env);
}

}  // namespace doppel::riscv
