#include "app/options.h"

#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <toml++/toml.h>

#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <map>

#include "base/option_list.h"

namespace doppel {
namespace {

using Apply = Result<void> (*)(BootOptions&, const std::string& value);

// One option, from the command line or from VM.toml. Values arrive as text either way.
struct Option {
  enum class Kind { kValue, kList, kOptionalValue };
  std::string_view name;
  std::string_view value_name;
  Kind kind;
  bool is_path;  // relative to VM.toml's folder, when it stands there
  std::string_view help;
  Apply apply;
};

// A flag-like option without a value gets this one.
constexpr std::string_view kNoValue = "-";

Result<double> parse_number(std::string_view option, const std::string& text) {
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !std::isfinite(number)) {
    return fail("--{}: '{}' is no number", option, text);
  }
  return number;
}

Result<void> unavailable(std::string_view option, const std::string& value) {
  return fail("--{}{}{}: not available yet in this version of Doppel", option, value.empty() ? "" : " ", value);
}

Result<void> apply_memory(BootOptions& options, const std::string& value) {
  const auto size = parse_size(value);
  if (!size) return fail("--memory: {}", size.error().message);
  constexpr std::uint64_t kLeast = 1 << 20, kMost = std::uint64_t{1} << 40;
  if (*size < kLeast || *size > kMost) return fail("--memory: '{}' is not between 1M and 1T", value);
  if (*size % kPageSize != 0) return fail("--memory: '{}' is no multiple of 4K", value);
  options.machine.memory_bytes = *size;
  return {};
}

Result<void> apply_harts(BootOptions& options, const std::string& value) {
  unsigned harts = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), harts);
  if (error != std::errc() || end != value.data() + value.size() || harts == 0 || harts > 64) {
    return fail("--harts: '{}' is no number from 1 to 64", value);
  }
  options.machine.harts = harts;
  return {};
}

Result<void> apply_address_bits(BootOptions& options, const std::string& value) {
  for (const unsigned bits : {39u, 48u, 57u}) {
    if (value != std::to_string(bits)) continue;
    options.machine.address_bits = bits;
    return {};
  }
  return fail("--address-bits: '{}' is none of 39, 48, 57", value);
}

Result<void> apply_disk(BootOptions& options, const std::string& value) {
  auto disk = parse_disk_options(value);
  if (!disk) return std::unexpected(disk.error());
  options.machine.disks.push_back(std::move(*disk));
  return {};
}

Result<void> apply_net(BootOptions& options, const std::string& value) {
  auto network = parse_network_options(value);
  if (!network) return std::unexpected(network.error());
  options.machine.networks.push_back(std::move(*network));
  return {};
}

Result<void> apply_console(BootOptions& options, const std::string& value) {
  const auto console = parse_console(value);
  if (!console) return std::unexpected(console.error());
  options.console = *console;
  return {};
}

Result<void> apply_virtio_console(BootOptions& options, const std::string& value) {
  const auto console = parse_console(value);
  if (!console) return std::unexpected(console.error());
  options.virtio_console = *console;
  return {};
}

Result<void> apply_engine(BootOptions& options, const std::string& value) {
  if (value == "interpret") {
    options.machine.engine = EngineKind::kInterpret;
    return {};
  }
  if (value == "translate") {
    options.machine.engine = EngineKind::kTranslate;
    return {};
  }
  if (value == "kvm") return unavailable("engine", value);
  return fail("--engine: '{}' is none of interpret, translate, kvm", value);
}

Result<void> apply_gdb(BootOptions& options, const std::string& value) {
  if (value.empty()) return fail("--gdb: a port or the path of a socket is missing");
  options.gdb = value;
  return {};
}

Result<void> apply_timeout(BootOptions& options, const std::string& value) {
  const auto seconds = parse_number("timeout", value);
  if (!seconds) return std::unexpected(seconds.error());
  constexpr double kMost = 1e9;
  if (*seconds <= 0 || *seconds > kMost) return fail("--timeout: '{}' is no number of seconds above 0", value);
  options.timeout = std::chrono::duration<double>(*seconds);
  return {};
}

Result<void> apply_stats(BootOptions& options, const std::string& value) {
  options.statistics = true;
  options.statistics_path = value == kNoValue ? "" : value;
  return {};
}

Result<void> apply_log_level(BootOptions& options, const std::string& value) {
  constexpr std::array<std::pair<std::string_view, LogLevel>, 5> kLevels{{{"debug", LogLevel::kDebug},
                                                                          {"info", LogLevel::kInfo},
                                                                          {"warning", LogLevel::kWarning},
                                                                          {"error", LogLevel::kError},
                                                                          {"off", LogLevel::kOff}}};
  for (const auto& [name, level] : kLevels) {
    if (value != name) continue;
    options.log_level = level;
    return {};
  }
  return fail("--log-level: '{}' is none of debug, info, warning, error, off", value);
}

Result<void> apply_trace(BootOptions& options, const std::string& value) {
  constexpr std::array<std::string_view, 4> kLater{"exec", "traps", "mmu", "virtio"};
  constexpr std::array<std::pair<std::string_view, bool TranslationLogOptions::*>, 3> kKnown{
      {{"blocks", &TranslationLogOptions::blocks},
       {"ir", &TranslationLogOptions::ir},
       {"host", &TranslationLogOptions::host}}};
  for (const NamedOption& what : split_options(value)) {
    if (std::ranges::find(kLater, what.text) != kLater.end()) return unavailable("trace", std::string(what.text));
    const auto known = std::ranges::find(kKnown, what.text, [](const auto& entry) { return entry.first; });
    if (known == kKnown.end()) return fail("--trace: '{}' is none of blocks, ir, host", what.text);
    options.machine.trace.*known->second = true;
  }
  // What is asked for is to be seen.
  options.log_level = std::min(options.log_level, LogLevel::kInfo);
  return {};
}

template <auto Member>
Result<void> set_text(BootOptions& options, const std::string& value) {
  options.*Member = value;
  return {};
}
template <auto Member>
Result<void> set_boot(BootOptions& options, const std::string& value) {
  options.machine.boot.*Member = value;
  return {};
}

constexpr auto kValue = Option::Kind::kValue, kList = Option::Kind::kList, kOptionalValue = Option::Kind::kOptionalValue;

constexpr std::array kOptions{
    Option{"name", "NAME", kValue, false, "The machine's name", set_text<&BootOptions::name>},
    Option{"memory", "SIZE", kValue, false, "RAM, such as 512M or 2G (default 1G)", apply_memory},
    Option{"harts", "N", kValue, false, "Processors, 1 to 64 (default 2)", apply_harts},
    Option{"address-bits", "39|48|57", kValue, false,
           "The largest virtual address space of the guest, Sv39 to Sv57 (default 39, where programs run fastest)",
           apply_address_bits},
    Option{"kernel", "FILE", kValue, true, "Linux Image (plain, gzip or EFI zboot) or ELF executable",
           set_boot<&BootConfig::kernel>},
    Option{"initrd", "FILE", kValue, true, "Initial RAM disk for the kernel", set_boot<&BootConfig::initrd>},
    Option{"append", "TEXT", kValue, false, "The kernel's command line", set_boot<&BootConfig::append>},
    Option{"dtb", "FILE", kValue, true, "Device tree in place of the generated one",
           set_boot<&BootConfig::device_tree>},
    Option{"firmware", "FILE|builtin|none", kValue, true,
           "Machine-mode firmware, such as OpenSBI's fw_dynamic.bin (default builtin)",
           set_boot<&BootConfig::firmware>},
    Option{"disk", "FILE[,...]", kList, true,
           "FILE[,format=raw][,readonly][,serial=TEXT][,cache=writeback|none|unsafe]; repeatable", apply_disk},
    Option{"net", "KIND[,...]", kList, false,
           "user[,forward=tcp:8080:80][,mac=ADDRESS] or none; repeatable (default user)", apply_net},
    Option{"console", "WHERE", kValue, false, "Serial line: stdio (default), none, file=PATH or unix=PATH",
           apply_console},
    Option{"virtio-console", "WHERE", kValue, false,
           "A virtio console (hvc0 in Linux) with its far end there, as for --console", apply_virtio_console},
    Option{"engine", "NAME", kValue, false, "What runs the guest's code: translate (default) or interpret", apply_engine},
    Option{"code-cache", "DIR|off", kValue, false,
           "Where translated code is kept for other machines (default: what DOPPEL_CODE_CACHE says, or "
           "~/.cache/doppel/code)",
           [](BootOptions& options, const std::string& value) {
             options.code_cache = value;
             return Result<void>{};
           }},
    Option{"gdb", "PORT|PATH", kValue, false, "Wait for gdb at a port of 127.0.0.1 or a socket, and obey it",
           apply_gdb},
    Option{"timeout", "SECONDS", kValue, false, "Stop the machine after this time and exit 124", apply_timeout},
    Option{"stats", "FILE", kOptionalValue, false, "At the end, statistics as JSON to stderr or FILE", apply_stats},
    Option{"trace", "WHAT[,...]", kValue, false, "Trace translation to the log: blocks, ir, host", apply_trace},
    Option{"without-pass", "NAME[,...]", kList, false, "Leave out passes of the translator; no code is kept then; repeatable",
           [](BootOptions& options, const std::string& value) { return leave_out_passes(options.machine.passes, value); }},
    Option{"log", "FILE", kValue, true, "Append the log to FILE instead of stderr", set_text<&BootOptions::log_path>},
    Option{"log-level", "LEVEL", kValue, false, "debug, info, warning (default), error or off", apply_log_level},
    Option{"perf-map", "", kOptionalValue, false, "Name translated code for Linux perf, in /tmp/perf-PID.map",
           [](BootOptions& options, const std::string&) {
             options.machine.trace.perf_map = true;
             return Result<void>{};
           }},
};

// Values by option name, in the order given.
using Values = std::map<std::string_view, std::vector<std::string>, std::less<>>;

const Option* find_option(std::string_view name) {
  const auto found = std::ranges::find(kOptions, name, &Option::name);
  return found == kOptions.end() ? nullptr : found;
}

// A path of VM.toml is relative to its folder. A disk's may be followed by options, so commas are doubled.
std::string relative_to(const std::string& folder, const Option& option, std::string value) {
  if (!option.is_path || value.empty() || value.front() == '/' || folder.empty()) return value;
  if (option.name == "firmware" && (value == "builtin" || value == "none")) return value;
  std::string prefix;
  for (const char c : folder) prefix.append(option.name == "disk" && c == ',' ? 2 : 1, c);
  return prefix + value;
}

Result<std::string> toml_text(const std::string& path, std::string_view key, const toml::node& node) {
  if (const auto text = node.value_exact<std::string>()) return *text;
  if (const auto integer = node.value_exact<std::int64_t>()) return std::to_string(*integer);
  if (const auto real = node.value_exact<double>()) return fmt::format("{}", *real);
  return fail("{}: line {}: '{}' is neither text nor a number", path, node.source().begin.line, key);
}

Result<Values> read_toml(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return fail_errno(errno, "cannot open {}", path);
  if (!S_ISREG(status.st_mode)) return fail("{} is no regular file", path);
  toml::table table;
  try {
    table = toml::parse_file(path);
  } catch (const toml::parse_error& error) {
    return fail("{}: line {}: {}", path, error.source().begin.line, error.description());
  }
  const std::size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "" : path.substr(0, slash + 1);

  Values values;
  for (const auto& [key, node] : table) {
    const Option* option = find_option(key.str());
    if (option == nullptr) return fail("{}: line {}: unknown option '{}'", path, node.source().begin.line, key.str());
    std::vector<std::string>& texts = values[option->name];
    if (option->kind == kOptionalValue && node.is_boolean()) {
      if (*node.value<bool>()) texts.emplace_back(kNoValue);
      continue;
    }
    const toml::array* array = option->kind == kList ? node.as_array() : nullptr;
    const auto add = [&](const toml::node& element) -> Result<void> {
      auto text = toml_text(path, key.str(), element);
      if (!text) return std::unexpected(text.error());
      texts.push_back(relative_to(folder, *option, std::move(*text)));
      return {};
    };
    if (array == nullptr) {
      if (auto added = add(node); !added) return std::unexpected(added.error());
      continue;
    }
    for (const toml::node& element : *array) {
      if (auto added = add(element); !added) return std::unexpected(added.error());
    }
  }
  return values;
}

std::string cache_folder() {
  const auto variable = [](const char* name) -> std::string {
    const char* value = std::getenv(name);
    return value == nullptr ? "" : value;
  };
  if (auto folder = variable("DOPPEL_CACHE"); !folder.empty()) return folder;
  if (auto folder = variable("XDG_CACHE_HOME"); !folder.empty()) return folder + "/doppel";
  return variable("HOME") + "/.cache/doppel";
}

Result<std::string> from_cache(std::string_view file, std::string_view what) {
  std::string path = fmt::format("{}/{}", cache_folder(), file);
  if (::access(path.c_str(), R_OK) == 0) return path;
  return fail("{} is missing: no {} (`make guest` prepares it; or name one with --kernel)", what, path);
}

// Without a kernel: a disk boots itself, through U-Boot; without a disk the default guest boots.
Result<void> complete(BootOptions& options) {
  BootConfig& boot = options.machine.boot;
  constexpr auto kStdio = ConsoleChoice::Kind::kStdio;
  if (options.console.kind == kStdio && options.virtio_console && options.virtio_console->kind == kStdio) {
    return fail("--virtio-console stdio: the serial line is there already; add --console none");
  }
  if (options.machine.networks.empty()) options.machine.networks.emplace_back();
  std::erase_if(options.machine.networks, [](const NetworkOptions& net) { return net.kind == NetworkKind::kNone; });
  if (!boot.kernel.empty()) return {};
  if (boot.firmware == "none") return fail("--firmware none needs a --kernel, which starts in machine mode");

  const bool from_disk = !options.machine.disks.empty() && boot.initrd.empty();
  auto kernel = from_disk ? from_cache("u-boot.bin", "the boot loader for disks")
                          : from_cache("Image", "the default guest's kernel");
  if (!kernel) return std::unexpected(kernel.error());
  boot.kernel = std::move(*kernel);
  boot.kernel_may_be_raw = from_disk;
  if (from_disk || !boot.initrd.empty()) return {};
  auto initrd = from_cache("initramfs.cpio.gz", "the default guest's initial RAM disk");
  if (!initrd) return std::unexpected(initrd.error());
  boot.initrd = std::move(*initrd);
  return {};
}

Result<BootOptions> interpret(const Values& values) {
  BootOptions options;
  for (const Option& option : kOptions) {
    const auto found = values.find(option.name);
    if (found == values.end() || found->second.empty()) continue;
    // Of a value given twice the last counts, as with other tools.
    const std::size_t first = option.kind == kList ? 0 : found->second.size() - 1;
    for (const std::string& value : std::span(found->second).subspan(first)) {
      if (auto applied = option.apply(options, value); !applied) return std::unexpected(applied.error());
    }
  }
  return options;
}

constexpr const char* kMainFooter =
    "Example:\n"
    "  doppel boot                        the default guest on this terminal; Ctrl-A X leaves";

constexpr std::string_view kBootFooter =
    "\n"
    "Without a kernel or a disk the default guest boots. Ctrl-A X leaves, Ctrl-A H helps.\n"
    "\n"
    "Exit status: 0 after a power-off by the guest, the code that it gave to its test finisher,\n"
    "2 for a mistake in options or files, 124 after --timeout, 125 when Doppel itself fails,\n"
    "128 + N after signal N.\n"
    "\n"
    "Examples:\n"
    "  doppel boot --memory 2G --harts 4\n"
    "  doppel boot --kernel Image --initrd initramfs.cpio.gz --append 'console=ttyS0'\n"
    "  doppel boot --disk debian.img --net user,forward=tcp:2222:22\n"
    "  doppel boot --firmware fw_dynamic.bin --kernel Image --stats=stats.json\n"
    "  doppel boot --firmware none --kernel test.elf --timeout 10\n"
    "  doppel boot server.toml --memory 4G\n";

std::string boot_help() {
  constexpr std::string_view kLine = "  {:<31} {}\n";
  std::string text =
      "Boot a RISC-V virtual machine\n"
      "Usage: doppel boot [OPTIONS] [VM.toml]\n\n"
      "VM.toml says the same as the options, under the same names; options win.\n\n"
      "Options:\n";
  text += fmt::format(kLine, "-h, --help", "This text");
  for (const Option& option : kOptions) {
    const char* separator = option.value_name.empty() ? "" : option.kind == kOptionalValue ? "[=" : " ";
    const char* end = option.kind == kOptionalValue && !option.value_name.empty() ? "]" : "";
    text += fmt::format(kLine, fmt::format("--{}{}{}{}", option.name, separator, option.value_name, end), option.help);
  }
  return text.append(kBootFooter);
}

}  // namespace

Result<std::uint64_t> parse_size(std::string_view text) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc::result_out_of_range) return fail("'{}' is too large", text);
  if (error != std::errc()) return fail("'{}' is no size; write 512M or 2G", text);
  const std::string_view suffix = text.substr(static_cast<std::size_t>(end - text.data()));
  constexpr std::string_view kSuffixes = "KMGT";
  if (suffix.empty()) return number;
  const std::size_t index = kSuffixes.find(static_cast<char>(std::toupper(static_cast<unsigned char>(suffix[0]))));
  if (index == std::string_view::npos || (suffix.size() > 1 && suffix.substr(1) != "iB")) {
    return fail("'{}' has the unknown suffix '{}'; known are K, M, G and T", text, suffix);
  }
  const unsigned shift = 10 * (static_cast<unsigned>(index) + 1);
  if (number > ~std::uint64_t{0} >> shift) return fail("'{}' is too large", text);
  return number << shift;
}

std::vector<std::string_view> boot_option_names() {
  std::vector<std::string_view> names;
  for (const Option& option : kOptions) names.push_back(option.name);
  return names;
}

Result<BootOptions> parse_boot_file(const std::string& path) {
  const auto values = read_toml(path);
  if (!values) return std::unexpected(values.error());
  return interpret(*values);
}

Result<Command> parse_command_line(int argc, const char* const* argv) {
  CLI::App app("Doppel: virtual machines without hardware help", "doppel");
  app.set_version_flag("--version", "doppel " DOPPEL_VERSION);
  app.footer(kMainFooter);
  app.allow_extras();
  CLI::App* boot = app.add_subcommand("boot", "Boot a RISC-V virtual machine");
  boot->allow_extras();
  app.add_subcommand("run", "Run a riscv64 Linux program");  // main() has taken it; for the help

  std::string file;
  boot->add_option("VM.toml", file);
  std::map<std::string_view, std::string> optional;
  Values given;
  for (const Option& option : kOptions) {
    const std::string flag = fmt::format("--{}", option.name);
    if (option.kind == kOptionalValue) {
      boot->add_flag(fmt::format("{}{{{}}}", flag, kNoValue), optional[option.name]);
    } else {
      boot->add_option(flag, given[option.name])->type_size(1)->allow_extra_args(false);
    }
  }

  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return PrintText{boot->parsed() ? boot_help() : app.help()};
  } catch (const CLI::CallForVersion&) {
    return PrintText{app.version() + "\n"};
  } catch (const CLI::ArgumentMismatch& error) {
    const std::string_view what = error.what();
    return fail("{} needs a value; see `doppel boot --help`", what.substr(0, what.find(':')));
  } catch (const CLI::ParseError& error) {
    return fail("{}; see `doppel boot --help`", error.what());
  }
  const bool booting = boot->parsed();
  for (const std::string& extra : booting ? boot->remaining() : app.remaining()) {
    const std::string_view help = booting ? "doppel boot --help" : "doppel --help";
    if (extra.starts_with("-")) return fail("unknown option {}; see `{}`", extra, help);
    if (booting) return fail("unexpected argument '{}'; see `{}`", extra, help);
    return fail("unknown command '{}'; see `{}`", extra, help);
  }
  if (!booting) return fail("a command is missing; see `doppel --help`");

  Values values;
  if (!file.empty()) {
    auto read = read_toml(file);
    if (!read) return std::unexpected(read.error());
    values = std::move(*read);
  }
  for (auto& [name, text] : optional) {
    if (!text.empty()) values[name] = {text};
  }
  for (auto& [name, texts] : given) {
    if (!texts.empty()) values[name] = std::move(texts);
  }
  auto options = interpret(values);
  if (!options) return std::unexpected(options.error());
  if (auto completed = complete(*options); !completed) return std::unexpected(completed.error());
  return *options;
}

}  // namespace doppel
