#include "app/run.h"

#include <signal.h>
#include <sys/signalfd.h>

#include <array>
#include <cstdio>
#include <fstream>
#include <iostream>

#include <nlohmann/json.hpp>

#include "app/terminal.h"
#include "debug/gdb_server.h"
#include "engine/kept_code.h"
#include "machine/riscv/virt.h"

namespace doppel {
namespace {

using Json = nlohmann::ordered_json;

// What asks us to end, and is answered by stopping the machine first. In raw mode no key sends any of these.
constexpr std::array kEndingSignals = {SIGTERM, SIGINT, SIGHUP, SIGQUIT};

// Turns those signals into callbacks of the loop. They stay blocked: made before other threads, which inherit that.
class Signals {
 public:
  Signals(EventLoop& loop, std::function<void(int)> received) : loop_(loop) {
    sigset_t set;
    ::sigemptyset(&set);
    for (const int signal : kEndingSignals) ::sigaddset(&set, signal);
    ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
    ::signal(SIGPIPE, SIG_IGN);
    fd_ = UniqueFd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    loop_.watch(fd_.get(), EventLoop::kReadable, [this, received = std::move(received)](std::uint32_t) {
      signalfd_siginfo info{};
      if (::read(fd_.get(), &info, sizeof info) == sizeof info) received(static_cast<int>(info.ssi_signo));
    });
  }
  ~Signals() { loop_.unwatch(fd_.get()); }

 private:
  EventLoop& loop_;
  UniqueFd fd_;
};

// Sums over the machines that one run of `doppel boot` builds: a reset makes a new one.
struct Totals {
  MachineStatistics sum;

  void add(const MachineStatistics& machine) {
    sum.engine = machine.engine;
    sum.harts.resize(machine.harts.size());
    for (std::size_t i = 0; i < machine.harts.size(); ++i) {
      sum.harts[i].instructions += machine.harts[i].instructions;
      sum.harts[i].waits += machine.harts[i].waits;
    }
    add_counts(sum.exits, machine.exits);
    add_counts(sum.traps, machine.traps);
    sum.translation += machine.translation;
  }

  static void add_counts(std::vector<MachineStatistics::Count>& into, const std::vector<MachineStatistics::Count>& from) {
    for (const auto& count : from) {
      const auto found = std::ranges::find(into, count.cause, &MachineStatistics::Count::cause);
      if (found == into.end()) {
        into.push_back(count);
      } else {
        found->count += count.count;
      }
    }
  }
};

Json to_json(const BootOptions& options, const MachineStatistics& all, double seconds) {
  const auto by_cause = [](const std::vector<MachineStatistics::Count>& counts) {
    Json json = Json::object();
    for (const auto& count : counts) json[count.cause] = count.count;
    return json;
  };
  std::uint64_t instructions = 0;
  Json harts = Json::array();
  for (const auto& hart : all.harts) {
    instructions += hart.instructions;
    harts.push_back({{"instructions", hart.instructions}, {"waits", hart.waits}});
  }
  const EngineStatistics& engine = all.translation;
  Json json;
  if (!options.name.empty()) json["name"] = options.name;
  json["engine"] = all.engine;
  json["seconds"] = seconds;
  json["instructions"] = instructions;
  json["blocks_translated"] = engine.blocks_translated;
  json["regions_translated"] = engine.regions_translated;
  json["translate_seconds"] = engine.translate_seconds;
  json["background_seconds"] = engine.background_seconds;
  json["code_bytes"] = engine.code_bytes;
  json["code_cache"] = {{"hits", engine.cache_hits},
                        {"misses", engine.cache_misses},
                        {"loaded", engine.cache_loaded},
                        {"evicted", engine.cache_evicted},
                        {"invalidated", engine.cache_invalidated}};
  json["shadows"] = {{"programs", engine.shadows}, {"pages", engine.shadow_pages}};
  json["window"] = {{"pages", engine.window_pages}, {"misses", engine.window_misses}, {"far_links", engine.far_links}};
  json["exits"] = by_cause(all.exits);
  json["traps"] = by_cause(all.traps);
  json["harts"] = harts;
  return json;
}

void write_statistics(std::ostream& file, const Json& json) { file << json.dump(2) << std::endl; }

}  // namespace

int run_boot(const BootOptions& options) {
  const auto refuse = [](const Error& error) {
    report(error);
    return kExitUsage;
  };
  if (auto configured = configure_log(options.log_level, options.log_path); !configured) {
    return refuse(configured.error());
  }

  std::ofstream statistics_file;
  if (!options.statistics_path.empty()) {
    statistics_file.open(options.statistics_path);
    if (!statistics_file) return refuse({fmt::format("cannot write {}", options.statistics_path)});
  }

  // The interpreter has no use for one.
  const bool translates = options.machine.engine == EngineKind::kTranslate;
  auto code_folder = translates ? open_code_folder(options.code_cache) : Result<UniqueFd>(UniqueFd());
  if (!code_folder) return refuse(code_folder.error());
  MachineConfig config = options.machine;
  config.code_folder = code_folder->get();

  EventLoop loop;
  std::unique_ptr<Machine> machine;
  std::optional<int> forced_status;  // we ended the machine, and this is why
  const auto stop = [&](int status) {
    if (!forced_status) forced_status = status;
    if (machine) machine->stop();
  };

  const Signals signals(loop, [&](int signal) { stop(128 + signal); });
  auto console = open_console(options.console, loop, EscapeKeys([&] { stop(0); }));
  if (!console) return refuse(console.error());
  std::unique_ptr<ConsoleBackend> virtio_console;
  if (options.virtio_console) {
    auto opened = open_console(*options.virtio_console, loop, EscapeKeys([&] { stop(0); }));
    if (!opened) return refuse(opened.error());
    virtio_console = std::move(*opened);
  }
  const auto timer = loop.make_timer([&] { stop(kExitTimeout); });

  std::unique_ptr<debug::GdbServer> gdb;
  if (!options.gdb.empty()) {
    auto socket = debug::GdbServer::open(options.gdb);
    if (!socket) return refuse(socket.error());
    gdb = debug::GdbServer::listen(loop, std::move(*socket));
  }

  std::optional<RawTerminal> terminal;
  Totals totals;
  const auto began = HostTime::clock::now();
  for (bool first = true;; first = false) {
    Outcome outcome;
    const auto ended = [&](Outcome how) {
      outcome = how;
      loop.stop();
    };
    auto made = riscv::make_virt_machine(config, {loop, **console, ended, virtio_console.get()});
    if (!made) {
      terminal.reset();
      report(made.error());
      return first ? kExitUsage : kExitFailure;  // a reset cannot be the user's mistake
    }
    machine = std::move(*made);
    if (first) {
      if (options.uses_stdio()) terminal.emplace();
      using Duration = HostTime::duration;
      if (options.timeout) timer->arm(began + std::chrono::duration_cast<Duration>(*options.timeout));
    }
    std::unique_ptr<debug::Target> target;
    // Not from within a packet: the machine ends when the debugger has its answer.
    if (gdb) target = machine->debug_target([&] { loop.post([&] { stop(128 + SIGKILL); }); });
    machine->start();
    if (gdb) gdb->attach(*target);
    loop.run();
    if (gdb) gdb->release_target();
    target.reset();
    totals.add(machine->statistics());
    machine.reset();
    if (forced_status || outcome.kind != Outcome::Kind::kReset) {
      if (gdb) gdb->ended(static_cast<unsigned>(forced_status.value_or(outcome.code)) & 0xff);
      console->reset();  // the guest's last words come before ours
      virtio_console.reset();
      terminal.reset();
      if (options.statistics) {
        const std::chrono::duration<double> seconds = HostTime::clock::now() - began;
        const Json json = to_json(options, totals.sum, seconds.count());
        write_statistics(statistics_file.is_open() ? statistics_file : std::cerr, json);
        if (statistics_file.is_open() && !statistics_file) {
          report({fmt::format("cannot write {}", options.statistics_path)});
          return kExitFailure;
        }
      }
      return forced_status.value_or(outcome.kind == Outcome::Kind::kExitCode ? outcome.code : 0);
    }
  }
}

}  // namespace doppel
