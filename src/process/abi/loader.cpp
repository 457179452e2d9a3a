#include "process/abi/loader.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>

#include "base/bits.h"
#include "base/unique_fd.h"
#include "memory/address.h"
#include "process/abi/busy_programs.h"
#include "process/abi/elf_file.h"

namespace doppel::process {
namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20, kGiB = kMiB << 10;
constexpr std::uint64_t kTop = AddressSpace::kLowBytes;
constexpr std::uint64_t kProgramBase = align_down(kTop / 3 * 2, kPageSize);  // ELF_ET_DYN_BASE
constexpr std::uint64_t kStackAtStart = 128 << 10;                          // besides what is on it
constexpr int kScriptDepth = 5;
constexpr std::uint64_t kHwcap = 1u << ('i' - 'a') | 1u << ('m' - 'a') | 1u << ('a' - 'a') | 1u << ('f' - 'a') |
                                 1u << ('d' - 'a') | 1u << ('c' - 'a');

template <class... Args>
std::unexpected<LoadError> refuse(int number, fmt::format_string<Args...> format, Args&&... args) {
  const int status = number == ENOENT || number == ENOTDIR ? 127 : 126;
  return std::unexpected(LoadError{{fmt::format(format, std::forward<Args>(args)...)}, status, number});
}

std::expected<UniqueFd, LoadError> open_program(const std::string& path, int descriptor = -1) {
  UniqueFd fd(descriptor);
  if (!fd) {
    fd = UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    if (!fd) return refuse(errno, "{}: {}", path, std::strerror(errno));
  }
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) return refuse(errno, "{}: {}", path, std::strerror(errno));
  if (S_ISDIR(status.st_mode)) return refuse(EACCES, "{}: is a directory", path);
  if (!S_ISREG(status.st_mode)) return refuse(EACCES, "{}: not a regular file", path);
  if (::faccessat(AT_FDCWD, fmt::format("/proc/self/fd/{}", fd.get()).c_str(), X_OK, AT_EACCESS) != 0 &&
      (errno == EACCES || ::faccessat(AT_FDCWD, path.c_str(), X_OK, AT_EACCESS) != 0)) {
    return refuse(EACCES, "{}: {}", path, std::strerror(EACCES));
  }
  if (is_being_written(fd.get())) return refuse(ETXTBSY, "{}: {}", path, std::strerror(ETXTBSY));
  return fd;
}

std::expected<ElfFile, std::string> parse(int fd) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) status.st_size = 0;
  const ReadAt read = [fd](std::uint64_t offset, void* into, std::size_t bytes) {
    return offset <= static_cast<std::uint64_t>(LONG_MAX) &&
           ::pread(fd, into, bytes, static_cast<off_t>(offset)) == static_cast<ssize_t>(bytes);
  };
  return parse_elf(read, static_cast<std::uint64_t>(status.st_size));
}

bool is_host_elf(int fd) {
  Elf64_Ehdr elf{};
  return ::pread(fd, &elf, sizeof elf, 0) == sizeof elf && std::memcmp(elf.e_ident, ELFMAG, SELFMAG) == 0 &&
         elf.e_machine != EM_RISCV;
}

// As Linux: the kernel's own numbers, unless the personality says that nothing is to be random.
class Randomness {
 public:
  explicit Randomness(std::optional<std::uint64_t> seed = {})
      : on_((::personality(0xffffffff) & ADDR_NO_RANDOMIZE) == 0) {
    if (seed) {
      state_ = *seed;
    } else if (::getrandom(&state_, sizeof state_, 0) < 0) {
      on_ = false;
    }
  }
  // A multiple of a page below `below`, which is a power of two.
  std::uint64_t pages(std::uint64_t below) { return align_down(bytes(below), kPageSize); }
  std::uint64_t bytes(std::uint64_t below) { return on_ ? next() % below : 0; }

 private:
  // Sebastiano Vigna's splitmix64: at once ready, and what is drawn is little.
  std::uint64_t next() {
    std::uint64_t z = state_ += 0x9e37'79b9'7f4a'7c15;
    z = (z ^ z >> 30) * 0xbf58'476d'1ce4'e5b9;
    z = (z ^ z >> 27) * 0x94d0'49bb'1331'11eb;
    return z ^ z >> 31;
  }

  std::uint64_t state_ = 0;
  bool on_;
};

std::uint64_t stack_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_STACK, &limit) != 0) return 8 * kMiB;
  return limit.rlim_cur;
}

// Maps the file at its own address, or at `wanted` or where there is room; gives the bias.
std::expected<std::uint64_t, LoadError> map_object(AddressSpace& space, const std::string& path, int fd,
                                                   const ElfFile& file, std::uint64_t wanted) {
  // The whole range first, so that segments cannot meet anything else.
  const std::uint64_t bytes = file.high - file.low;
  constexpr int kReserve = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  std::int64_t mapped = 0;
  if (file.fixed) {
    mapped = space.map(file.low, bytes, PROT_NONE, kReserve | MAP_FIXED_NOREPLACE, -1, 0);
  } else {
    const std::uint64_t room = bytes + file.alignment - kPageSize;
    mapped = space.map(wanted != 0 ? align_down(wanted, file.alignment) : 0, room, PROT_NONE, kReserve, -1, 0);
    if (mapped > 0) {
      const auto start = static_cast<std::uint64_t>(mapped);
      const std::uint64_t aligned = align_down(start + file.alignment - 1, file.alignment);
      if (aligned > start) space.unmap(start, aligned - start);
      if (start + room > aligned + bytes) space.unmap(aligned + bytes, start + room - aligned - bytes);
      mapped = static_cast<std::int64_t>(aligned);
    }
  }
  if (mapped <= 0) return refuse(ENOMEM, "{}: its segments find no room", path);
  const std::uint64_t bias = static_cast<std::uint64_t>(mapped) - file.low;

  for (const ElfSegment& segment : file.segments) {
    const std::uint64_t start = segment.address + bias, page = align_down(start, kPageSize);
    const std::uint64_t file_end = start + segment.file_bytes, end = start + segment.memory_bytes;
    const std::uint64_t file_pages = align_down(file_end + kPageSize - 1, kPageSize);
    if (segment.file_bytes != 0 && space.map(page, file_end - page, segment.protection, MAP_PRIVATE | MAP_FIXED, fd,
                                             align_down(segment.offset, kPageSize)) < 0) {
      return refuse(ENOMEM, "{}: a segment cannot be mapped", path);
    }
    const std::uint64_t zero_from = segment.file_bytes != 0 ? file_pages : page;
    if (end > zero_from &&
        space.map(zero_from, end - zero_from, segment.protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) < 0) {
      return refuse(ENOMEM, "{}: a segment finds no memory", path);
    }
    // The rest of the file's last page, a private copy: to its end, since loaders allocate from there.
    if (segment.file_bytes != 0 && end > file_end && (segment.protection & PROT_WRITE) != 0) {
      std::memset(space.flat().host(file_end), 0, file_pages - file_end);
    }
  }
  return bias;
}

// Follows "#!" lines. As in Linux: one optional argument, then the script's path in place of argv[0].
std::expected<UniqueFd, LoadError> open_following_scripts(ProgramRequest& request) {
  const std::string first = request.path;
  int descriptor = std::exchange(request.descriptor, -1);
  for (int depth = 0; depth <= kScriptDepth; ++depth) {
    auto fd = open_program(request.path, std::exchange(descriptor, -1));
    if (!fd && depth > 0) {
      return refuse(fd.error().number, "{}: its interpreter {}", first, fd.error().error.message);
    }
    if (!fd) return fd;
    std::array<char, 257> head{};
    const ssize_t got = ::pread(fd->get(), head.data(), head.size() - 1, 0);
    if (got < 2 || head[0] != '#' || head[1] != '!') return fd;
    std::string line(head.data() + 2);
    const std::size_t newline = line.find('\n');
    const bool whole = newline != line.npos || got < static_cast<ssize_t>(head.size()) - 1;
    line.resize(std::min(newline, line.size()));
    const auto trim = [](std::string& text) {
      text.erase(0, std::min(text.find_first_not_of(" \t"), text.size()));
      text.resize(text.find_last_not_of(" \t\r") + 1);
    };
    trim(line);
    const std::size_t space = std::min(line.find_first_of(" \t"), line.size());
    std::string interpreter = line.substr(0, space), argument = line.substr(space);
    trim(argument);
    if (interpreter.empty()) return refuse(ENOEXEC, "{}: its first line names no interpreter", request.path);
    if (!whole && space == line.size()) return refuse(ENOEXEC, "{}: its first line is too long", request.path);
    std::vector<std::string> arguments{interpreter};
    if (!argument.empty()) arguments.push_back(argument);
    arguments.push_back(request.path);
    if (!request.arguments.empty()) {
      arguments.insert(arguments.end(), request.arguments.begin() + 1, request.arguments.end());
    }
    request.arguments = std::move(arguments);
    const std::string prefixed = request.library_prefix + interpreter;
    request.path = ::access(prefixed.c_str(), X_OK) == 0 ? prefixed : interpreter;
  }
  return refuse(ELOOP, "{}: scripts nest too deeply", first);
}

struct OpenElf {
  std::string path;
  UniqueFd fd;
  ElfFile file;
};

std::expected<OpenElf, LoadError> open_interpreter(const ProgramRequest& request, const std::string& interpreter) {
  std::string path = request.library_prefix + interpreter;
  if (::access(path.c_str(), R_OK) != 0) path = interpreter;
  auto fd = open_program(path);
  if (!fd) {
    return refuse(fd.error().number,
                  "{}: its interpreter {} cannot be opened: {} (-L DIR or --root DIR say where to look)",
                  request.path, path, std::strerror(fd.error().number));
  }
  auto file = parse(fd->get());
  if (!file) return refuse(ELIBBAD, "{}: its interpreter {}: {}", request.path, path, file.error());
  return OpenElf{path, std::move(*fd), std::move(*file)};
}

std::expected<OpenElf, LoadError> open_elf(ProgramRequest& request) {
  auto fd = open_following_scripts(request);
  if (!fd) return std::unexpected(fd.error());
  auto file = parse(fd->get());
  if (!file) return refuse(ENOEXEC, "{}: {}", request.path, file.error());
  return OpenElf{request.path, std::move(*fd), std::move(*file)};
}

struct Loaded {
  const ElfFile* file;
  std::uint64_t bias, interpreter_base;
};

// The stack as a program finds it: from the top down the file's name, environment, arguments, random bytes, then the
// auxiliary vector, pointers to the texts, and their number.
std::expected<std::uint64_t, LoadError> make_stack(AddressSpace& space, const ProgramRequest& request,
                                                   const Loaded& program, std::uint64_t top, Randomness& random,
                                                   Image& image) {
  std::size_t text_bytes = request.path.size() + 1;
  for (const auto* list : {&request.arguments, &request.environment}) {
    for (const std::string& text : *list) text_bytes += text.size() + 1 + 2 * sizeof(std::uint64_t);
  }
  if (text_bytes > argument_bytes()) return refuse(E2BIG, "{}: {}", request.path, std::strerror(E2BIG));
  const std::uint64_t bytes = align_down(kStackAtStart + text_bytes + kPageSize - 1, kPageSize);
  const int protection = PROT_READ | PROT_WRITE | (program.file->executable_stack ? PROT_EXEC : 0);
  if (space.map_stack(top, bytes, protection) < 0) return refuse(ENOMEM, "{}: no memory for its stack", request.path);

  std::uint64_t sp = top - sizeof(std::uint64_t);
  const auto push = [&](const void* from, std::size_t size) {
    sp -= size;
    std::memcpy(space.flat().host(sp), from, size);
    return sp;
  };
  const auto push_texts = [&](const std::vector<std::string>& texts) {
    std::vector<std::uint64_t> places(texts.size());
    for (std::size_t i = texts.size(); i-- > 0;) places[i] = push(texts[i].c_str(), texts[i].size() + 1);
    return places;
  };
  const std::uint64_t name = push(request.path.c_str(), request.path.size() + 1);
  image.environment_end = sp;
  const auto environment = push_texts(request.environment);
  image.environment_start = image.arguments_end = sp;
  const auto arguments = push_texts(request.arguments);
  image.arguments_start = sp;
  std::array<std::byte, 16> seed{};
  if (::getrandom(seed.data(), seed.size(), 0) < 0) return refuse(EIO, "no random numbers");
  sp = align_down(sp - random.bytes(8192), 16);
  const std::uint64_t random_at = push(seed.data(), seed.size());

  const ElfFile& file = *program.file;
  image.auxiliary = {AT_HWCAP, kHwcap, AT_PAGESZ, kPageSize, AT_CLKTCK, 100,
                     AT_PHDR, file.headers != 0 ? file.headers + program.bias : 0, AT_PHENT, sizeof(Elf64_Phdr),
                     AT_PHNUM, file.header_count, AT_BASE, program.interpreter_base, AT_FLAGS, 0,
                     AT_ENTRY, file.entry + program.bias, AT_UID, ::getuid(), AT_EUID, ::geteuid(), AT_GID, ::getgid(),
                     AT_EGID, ::getegid(), AT_SECURE, ::getauxval(AT_SECURE), AT_RANDOM, random_at, AT_EXECFN, name};
  if (image.vdso != 0) image.auxiliary.insert(image.auxiliary.end(), {AT_SYSINFO_EHDR, image.vdso});
  image.auxiliary.insert(image.auxiliary.end(), {AT_NULL, 0});
  std::vector<std::uint64_t> words{request.arguments.size()};
  words.insert(words.end(), arguments.begin(), arguments.end());
  words.push_back(0);
  words.insert(words.end(), environment.begin(), environment.end());
  words.push_back(0);
  words.insert(words.end(), image.auxiliary.begin(), image.auxiliary.end());
  sp = align_down(sp - words.size() * sizeof words[0], 16);
  std::memcpy(space.flat().host(sp), words.data(), words.size() * sizeof words[0]);
  return sp;
}

std::string absolute(int fd, const std::string& path) {
  std::array<char, PATH_MAX> whole{};
  const ssize_t length = ::readlink(fmt::format("/proc/self/fd/{}", fd).c_str(), whole.data(), whole.size());
  if (length > 0) return std::string(whole.data(), static_cast<std::size_t>(length));
  return ::realpath(path.c_str(), whole.data()) != nullptr ? whole.data() : path;
}

}  // namespace

std::size_t argument_bytes() {
  // Never less than the 128 KiB that programs may rely on, never more than three quarters of the usual stack.
  return std::clamp<std::size_t>(stack_limit() / 4, 128 << 10, 6 * kMiB);
}

std::expected<Image, LoadError> load_program(AddressSpace& space, ProgramRequest& request,
                                             const LoadHooks& hooks) {
  auto program = open_elf(request);
  if (!program) return std::unexpected(program.error());
  const ElfFile& file = program->file;
  Randomness random;
  Randomness layout(hooks.code_layout ? hooks.code_layout(program->fd.get()) : std::nullopt);
  constexpr std::uint64_t kStackSpread = 8 * kMiB;
  const std::uint64_t top = kTop - kPageSize - random.pages(kStackSpread);
  // Below the stack: what it may grow to, within reason, and its guard.
  space.place_below(kTop - kPageSize - kStackSpread - std::clamp<std::uint64_t>(stack_limit(), 128 * kMiB, 8 * kGiB) -
                    kMiB - layout.pages(kGiB));
  auto bias = map_object(space, request.path, program->fd.get(), file, kProgramBase + layout.pages(kGiB));
  if (!bias) return std::unexpected(bias.error());
  space.start_break_at(file.high + *bias + random.pages(kGiB));
  Image image{.pc = file.entry + *bias, .path = absolute(program->fd.get(), request.path)};
  for (const ElfSegment& segment : file.segments) {
    const std::uint64_t start = segment.address + *bias;
    const bool code = (segment.protection & PROT_EXEC) != 0;
    (code ? image.code_start : image.data_start) = start;
    (code ? image.code_end : image.data_end) = start + segment.file_bytes;
  }
  Loaded loaded{&file, *bias, 0};
  if (file.interpreter) {
    auto interpreter = open_interpreter(request, *file.interpreter);
    if (!interpreter) return std::unexpected(interpreter.error());
    auto base = map_object(space, interpreter->path, interpreter->fd.get(), interpreter->file, 0);
    if (!base) return std::unexpected(base.error());
    image.pc = interpreter->file.entry + *base;
    loaded.interpreter_base = *base;
  }
  if (hooks.map_vdso) {
    const auto vdso = hooks.map_vdso();
    if (!vdso) return refuse(ENOMEM, "{}: {}", request.path, vdso.error().message);
    image.vdso = *vdso;
  }
  auto sp = make_stack(space, request, loaded, top, random, image);
  if (!sp) return std::unexpected(sp.error());
  image.sp = *sp;
  if (hooks.keep_file) hooks.keep_file(std::move(program->fd));
  return image;
}

std::expected<ProgramKind, LoadError> inspect_program(ProgramRequest request) {
  auto fd = open_following_scripts(request);
  if (!fd) return std::unexpected(fd.error());
  if (is_host_elf(fd->get())) return ProgramKind::kHost;
  auto file = parse(fd->get());
  if (!file) return refuse(ENOEXEC, "{}: {}", request.path, file.error());
  if (file->interpreter) {
    if (auto interpreter = open_interpreter(request, *file->interpreter); !interpreter) {
      return std::unexpected(interpreter.error());
    }
  }
  return ProgramKind::kGuest;
}

}  // namespace doppel::process
