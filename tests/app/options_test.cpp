#include "app/options.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "app/terminal.h"

namespace doppel {
namespace {

using testing::HasSubstr;
namespace fs = std::filesystem;

// A cache of our own, with empty files where the default guest's would be, and a place for VM.toml.
class OptionsTest : public testing::Test {
 protected:
  OptionsTest() {
    char name[] = "/tmp/doppel-test-XXXXXX";
    folder = ::mkdtemp(name);
    ::setenv("DOPPEL_CACHE", folder.c_str(), 1);
    for (const char* file : {"Image", "initramfs.cpio.gz", "u-boot.bin"}) std::ofstream(folder / file) << "x";
  }
  ~OptionsTest() override { fs::remove_all(folder); }

  Result<Command> parse(std::vector<const char*> arguments) {
    arguments.insert(arguments.begin(), "doppel");
    return parse_command_line(static_cast<int>(arguments.size()), arguments.data());
  }
  BootOptions boot(std::vector<const char*> arguments) {
    arguments.insert(arguments.begin(), "boot");
    auto command = parse(std::move(arguments));
    if (!command) {
      ADD_FAILURE() << command.error().message;
      return {};
    }
    return std::get<BootOptions>(*command);
  }
  std::string refusal(std::vector<const char*> arguments) {
    arguments.insert(arguments.begin(), "boot");
    const auto command = parse(std::move(arguments));
    return command ? "accepted" : command.error().message;
  }
  std::string toml(std::string_view text) {
    const fs::path path = folder / "VM.toml";
    std::ofstream(path) << text;
    return path;
  }

  fs::path folder;
};

TEST(ParseSize, KnowsItsSuffixes) {
  EXPECT_EQ(parse_size("4096").value(), 4096u);
  EXPECT_EQ(parse_size("3k").value(), 3u << 10);
  EXPECT_EQ(parse_size("512M").value(), 512u << 20);
  EXPECT_EQ(parse_size("2G").value(), std::uint64_t{2} << 30);
  EXPECT_EQ(parse_size("1TiB").value(), std::uint64_t{1} << 40);
  for (const char* bad : {"", "G", "-1", "1.5G", "12Q", "1MB", "99999999999999999999", "99999999999T", " 1M", "1M "}) {
    EXPECT_FALSE(parse_size(bad)) << bad;
  }
}

TEST_F(OptionsTest, DefaultGuestNeedsNoOptions) {
  const BootOptions options = boot({});
  EXPECT_EQ(options.machine.boot.kernel, folder / "Image");
  EXPECT_EQ(options.machine.boot.initrd, folder / "initramfs.cpio.gz");
  EXPECT_EQ(options.machine.boot.firmware, "builtin");
  EXPECT_EQ(options.machine.memory_bytes, std::uint64_t{1} << 30);
  EXPECT_EQ(options.machine.harts, 2u);
  ASSERT_EQ(options.machine.networks.size(), 1u);
  EXPECT_EQ(options.machine.networks[0].kind, NetworkKind::kUser);
  EXPECT_TRUE(boot({"--net", "none"}).machine.networks.empty());
}

TEST_F(OptionsTest, MissingDefaultGuestNamesTheRemedy) {
  fs::remove(folder / "Image");
  EXPECT_THAT(refusal({}), HasSubstr("make guest"));
}

TEST_F(OptionsTest, DiskAloneBootsItself) {
  const BootOptions options = boot({"--disk", "d.img,readonly,serial=a"});
  EXPECT_EQ(options.machine.boot.kernel, folder / "u-boot.bin");
  EXPECT_TRUE(options.machine.boot.kernel_may_be_raw);
  ASSERT_EQ(options.machine.disks.size(), 1u);
  EXPECT_TRUE(options.machine.disks[0].readonly);
}

TEST_F(OptionsTest, GivenKernelComesAlone) {
  const BootOptions options = boot({"--kernel", "k", "--append", "a b", "--harts", "3", "--memory", "64M", "--address-bits", "48"});
  EXPECT_EQ(options.machine.address_bits, 48u);
  EXPECT_EQ(options.machine.boot.kernel, "k");
  EXPECT_EQ(options.machine.boot.initrd, "");
  EXPECT_EQ(options.machine.boot.append, "a b");
  EXPECT_EQ(options.machine.harts, 3u);
  EXPECT_EQ(options.machine.memory_bytes, 64u << 20);
}

TEST_F(OptionsTest, StatsMayNameAFile) {
  EXPECT_FALSE(boot({}).statistics);
  EXPECT_TRUE(boot({"--stats"}).statistics);
  EXPECT_EQ(boot({"--stats"}).statistics_path, "");
  EXPECT_EQ(boot({"--stats=s.json"}).statistics_path, "s.json");
}

TEST_F(OptionsTest, FileSaysTheSame) {
  const std::string path = toml(R"(
name = "server"
memory = "256M"
harts = 8
kernel = "sub/Image"
firmware = "none"
disk = ["a.img,readonly", "/abs.img"]
net = "none"
timeout = 1.5
stats = true
console = "none"
)");
  const BootOptions options = boot({path.c_str()});
  EXPECT_EQ(options.name, "server");
  EXPECT_EQ(options.machine.memory_bytes, 256u << 20);
  EXPECT_EQ(options.machine.harts, 8u);
  EXPECT_EQ(options.machine.boot.kernel, folder / "sub/Image") << "relative to the file";
  EXPECT_EQ(options.machine.boot.firmware, "none");
  ASSERT_EQ(options.machine.disks.size(), 2u);
  EXPECT_EQ(options.machine.disks[0].path, folder / "a.img");
  EXPECT_EQ(options.machine.disks[1].path, "/abs.img");
  EXPECT_TRUE(options.machine.networks.empty());
  EXPECT_DOUBLE_EQ(options.timeout.value().count(), 1.5);
  EXPECT_TRUE(options.statistics);
  EXPECT_EQ(options.console.kind, ConsoleChoice::Kind::kNone);
}

TEST_F(OptionsTest, OptionsWinOverTheFile) {
  const std::string path = toml("harts = 8\nmemory = 1048576\ndisk = [\"a\", \"b\"]\nkernel = \"k\"");
  const BootOptions options = boot({path.c_str(), "--harts", "1", "--disk", "c"});
  EXPECT_EQ(options.machine.harts, 1u);
  EXPECT_EQ(options.machine.memory_bytes, 1u << 20);
  ASSERT_EQ(options.machine.disks.size(), 1u);
  EXPECT_EQ(options.machine.disks[0].path, "c");
}

TEST_F(OptionsTest, FilesThatSayTooMuch) {
  EXPECT_THAT(refusal({toml("\nhearts = 2").c_str()}), HasSubstr("line 2: unknown option 'hearts'"));
  EXPECT_THAT(refusal({toml("harts = [1, 2]").c_str()}), HasSubstr("'harts'"));
  EXPECT_THAT(refusal({toml("harts = \"many\"").c_str()}), HasSubstr("--harts: 'many'"));
  EXPECT_THAT(refusal({toml("kernel = true").c_str()}), HasSubstr("'kernel'"));
  EXPECT_THAT(refusal({toml("harts = ").c_str()}), HasSubstr("VM.toml: line 1"));
  EXPECT_THAT(refusal({"/nonexistent.toml"}), HasSubstr("/nonexistent.toml"));
  EXPECT_THAT(refusal({folder.c_str()}), HasSubstr("no regular file"));
}

TEST_F(OptionsTest, TracesTranslation) {
  EXPECT_EQ(refusal({"--trace", "blocks,ir,host", "--perf-map"}), "accepted");
  EXPECT_THAT(refusal({"--trace", "blocks,dreams"}), HasSubstr("dreams"));
}

TEST_F(OptionsTest, LeavesOutPasses) {
  PassSet fewer = PassSet::all();
  for (const char* name : {"dead_code", "dead_state"}) ASSERT_TRUE(fewer.set(name, false));
  EXPECT_EQ(boot({}).machine.passes, PassSet::all());
  EXPECT_EQ(boot({"--without-pass", "dead_code,dead_state"}).machine.passes, fewer);
  EXPECT_EQ(boot({"--without-pass", "dead_code", "--without-pass=dead_state"}).machine.passes, fewer);
  const std::string message = refusal({"--without-pass", "dead_code,dead_wood"});
  EXPECT_THAT(message, HasSubstr("'dead_wood' is none of"));
  for (const std::string_view name : ir::pass_names()) EXPECT_THAT(message, HasSubstr(std::string(name)));
}

// What is not possible yet is said, not ignored.
TEST_F(OptionsTest, RefusesWhatIsNotThereYet) {
  for (const auto& arguments : std::vector<std::vector<const char*>>{{"--engine", "kvm"},
                                                                     {"--trace", "exec"},
                                                                     {"--net", "tap=t0"},
                                                                     {"--net", "switch=s"},
                                                                     {"--disk", "d,format=qcow2"}}) {
    EXPECT_NE(refusal(arguments), "accepted") << arguments[0];
  }
}

TEST_F(OptionsTest, Mistakes) {
  EXPECT_THAT(refusal({"--bogus"}), HasSubstr("unknown option --bogus"));
  EXPECT_THAT(refusal({"--bogus=1"}), HasSubstr("unknown option --bogus"));
  EXPECT_THAT(refusal({"a.toml", "b.toml"}), HasSubstr("unexpected argument 'b.toml'"));
  EXPECT_THAT(refusal({"--memory"}), HasSubstr("--memory needs a value"));
  EXPECT_THAT(refusal({"--memory", "4K"}), HasSubstr("between 1M and 1T"));
  EXPECT_THAT(refusal({"--memory", "2097153"}), HasSubstr("no multiple of 4K"));
  EXPECT_THAT(refusal({"--harts", "0"}), HasSubstr("1 to 64"));
  EXPECT_THAT(refusal({"--address-bits", "40"}), HasSubstr("39, 48, 57"));
  EXPECT_THAT(refusal({"--harts", "65"}), HasSubstr("1 to 64"));
  EXPECT_THAT(refusal({"--timeout", "-1"}), HasSubstr("--timeout"));
  EXPECT_THAT(refusal({"--timeout", "nan"}), HasSubstr("--timeout"));
  EXPECT_THAT(refusal({"--console", "file="}), HasSubstr("--console"));
  EXPECT_THAT(refusal({"--log-level", "loud"}), HasSubstr("--log-level"));
  EXPECT_THAT(refusal({"--trace", "everything"}), HasSubstr("'everything' is none of"));
  EXPECT_THAT(refusal({"--engine", "fast"}), HasSubstr("--engine"));
  EXPECT_THAT(refusal({"--firmware", "none"}), HasSubstr("--kernel"));
  EXPECT_THAT(parse({}).error().message, HasSubstr("a command is missing"));
  EXPECT_THAT(parse({"reboot"}).error().message, HasSubstr("unknown command 'reboot'"));
}

TEST_F(OptionsTest, HelpNamesEveryOption) {
  const auto command = parse({"boot", "--help"});
  const std::string& help = std::get<PrintText>(*command).text;
  for (const std::string_view name : boot_option_names()) EXPECT_THAT(help, HasSubstr("--" + std::string(name)));
  EXPECT_THAT(help, HasSubstr("Examples:"));
  EXPECT_THAT(std::get<PrintText>(*parse({"--version"})).text, testing::StartsWith("doppel "));
}

std::string typed(EscapeKeys& keys, std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  std::vector<std::byte> buffer(bytes.begin(), bytes.end());
  keys(buffer);
  std::string kept;
  for (const std::byte byte : buffer) kept.push_back(static_cast<char>(byte));
  return kept;
}

TEST(EscapeKeys, TakesCtrlAAndTheNextKey) {
  int left = 0;
  EscapeKeys keys([&] { ++left; });
  EXPECT_EQ(typed(keys, "plain x"), "plain x");
  EXPECT_EQ(typed(keys, "a\001ab\001\001c"), "a\001b\001c");
  EXPECT_EQ(typed(keys, "\001q."), ".") << "an unknown key does nothing";
  EXPECT_EQ(left, 0);
  EXPECT_EQ(typed(keys, "\001"), "");
  EXPECT_EQ(typed(keys, "x"), "") << "the keys may arrive apart";
  EXPECT_EQ(left, 1);
  EXPECT_EQ(typed(keys, "\001X"), "");
  EXPECT_EQ(left, 2);
}

}  // namespace
}  // namespace doppel
