#include "process/abi/loader.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/bits.h"
#include "base/unique_fd.h"
#include "memory/address.h"

namespace doppel::process {
namespace {

constexpr std::uint64_t kStackTop = AddressSpace::kSizeBytes - kPageSize;
constexpr std::uint64_t kStackBytes = std::uint64_t{8} << 20;
constexpr std::uint64_t kProgramBase = 0x10'0000'0000 / 4;  // of position-independent programs
constexpr unsigned kMostHeaders = 128;
constexpr std::uint64_t kHwcap = 1u << ('i' - 'a') | 1u << ('m' - 'a') | 1u << ('a' - 'a') | 1u << ('f' - 'a') |
                                 1u << ('d' - 'a') | 1u << ('c' - 'a');

template <class... Args>
std::unexpected<LoadError> refuse(int status, fmt::format_string<Args...> format, Args&&... args) {
  return std::unexpected(LoadError{{fmt::format(format, std::forward<Args>(args)...)}, status});
}

struct Object {
  std::uint64_t bias = 0, entry = 0, headers = 0, header_count = 0, end = 0;
  std::string interpreter;
};

std::expected<UniqueFd, LoadError> open_program(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return refuse(errno == ENOENT || errno == ENOTDIR ? 127 : 126, "{}: {}", path, std::strerror(errno));
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode)) return refuse(126, "{}: not a regular file", path);
  if (::access(path.c_str(), X_OK) != 0) return refuse(126, "{}: {}", path, std::strerror(errno));
  return fd;
}

std::expected<Object, LoadError> load_object(AddressSpace& space, const std::string& path, int fd, bool program) {
  Elf64_Ehdr elf{};
  if (::pread(fd, &elf, sizeof elf, 0) != sizeof elf || std::memcmp(elf.e_ident, ELFMAG, SELFMAG) != 0) {
    return refuse(126, "{}: not an ELF file", path);
  }
  if (elf.e_ident[EI_CLASS] != ELFCLASS64 || elf.e_ident[EI_DATA] != ELFDATA2LSB || elf.e_machine != EM_RISCV) {
    return refuse(126, "{}: not a program for 64-bit RISC-V", path);
  }
  if (elf.e_type != ET_EXEC && elf.e_type != ET_DYN) return refuse(126, "{}: not an executable ELF file", path);
  if (elf.e_phentsize != sizeof(Elf64_Phdr) || elf.e_phnum == 0 || elf.e_phnum > kMostHeaders) {
    return refuse(126, "{}: its program headers are damaged", path);
  }
  std::array<Elf64_Phdr, kMostHeaders> table{};
  const std::size_t table_bytes = elf.e_phnum * sizeof(Elf64_Phdr);
  if (elf.e_phoff > std::uint64_t{1} << 40 ||
      ::pread(fd, table.data(), table_bytes, static_cast<off_t>(elf.e_phoff)) != static_cast<ssize_t>(table_bytes)) {
    return refuse(126, "{}: its program headers lie outside the file", path);
  }
  struct stat status {};
  if (::fstat(fd, &status) != 0) return refuse(126, "{}: {}", path, std::strerror(errno));
  const std::uint64_t file_bytes = static_cast<std::uint64_t>(status.st_size);

  Object object;
  std::uint64_t low = ~std::uint64_t{0}, high = 0;
  for (unsigned i = 0; i < elf.e_phnum; ++i) {
    const Elf64_Phdr& header = table[i];
    if (header.p_type == PT_INTERP) {
      std::array<char, 4096> name{};
      if (header.p_filesz < 2 || header.p_filesz >= name.size() || header.p_offset > file_bytes ||
          ::pread(fd, name.data(), header.p_filesz, static_cast<off_t>(header.p_offset)) !=
              static_cast<ssize_t>(header.p_filesz)) {
        return refuse(126, "{}: the name of its interpreter is damaged", path);
      }
      object.interpreter = name.data();
    }
    if (header.p_type != PT_LOAD || header.p_memsz == 0) continue;
    if (header.p_filesz > header.p_memsz || header.p_memsz > space.kSizeBytes || header.p_vaddr > space.kSizeBytes ||
        header.p_offset > file_bytes || header.p_filesz > file_bytes - header.p_offset ||
        (header.p_vaddr - header.p_offset) % kPageSize != 0) {
      return refuse(126, "{}: segment {} is damaged or truncated", path, i);
    }
    low = std::min(low, align_down(header.p_vaddr, kPageSize));
    high = std::max(high, align_down(header.p_vaddr + header.p_memsz + kPageSize - 1, kPageSize));
  }
  if (high <= low) return refuse(126, "{}: nothing in it is to be loaded", path);

  // The whole range first, so that segments cannot meet anything else.
  std::uint64_t at = elf.e_type == ET_EXEC ? low : program ? kProgramBase : 0;
  const int fixed = at != 0 ? MAP_FIXED_NOREPLACE : 0;
  const std::int64_t mapped =
      space.map(at, high - low, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | fixed, -1, 0);
  if (mapped <= 0) return refuse(126, "{}: its segments find no room at {:#x}", path, at);
  object.bias = static_cast<std::uint64_t>(mapped) - low;
  object.entry = elf.e_entry + object.bias;
  object.header_count = elf.e_phnum;
  object.end = high + object.bias;

  for (unsigned i = 0; i < elf.e_phnum; ++i) {
    const Elf64_Phdr& header = table[i];
    if (header.p_type != PT_LOAD || header.p_memsz == 0) continue;
    const int protection = ((header.p_flags & PF_R) != 0 ? PROT_READ : 0) |
                           ((header.p_flags & PF_W) != 0 ? PROT_WRITE : 0) |
                           ((header.p_flags & PF_X) != 0 ? PROT_EXEC : 0);
    const std::uint64_t start = header.p_vaddr + object.bias, page = align_down(start, kPageSize);
    const std::uint64_t file_end = start + header.p_filesz, end = start + header.p_memsz;
    const std::uint64_t file_pages = align_down(file_end + kPageSize - 1, kPageSize);
    if (header.p_filesz != 0 &&
        space.map(page, file_end - page, protection, MAP_PRIVATE | MAP_FIXED, fd,
                  align_down(header.p_offset, kPageSize)) < 0) {
      return refuse(126, "{}: segment {} cannot be mapped", path, i);
    }
    const std::uint64_t zero_from = header.p_filesz != 0 ? file_pages : page;
    if (end > zero_from &&
        space.map(zero_from, end - zero_from, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) < 0) {
      return refuse(126, "{}: segment {} finds no memory", path, i);
    }
    // The rest of the file's last page, a private copy: to its end, since loaders allocate from there.
    if (header.p_filesz != 0 && end > file_end && (header.p_flags & PF_W) != 0) {
      std::memset(space.flat().host(file_end), 0, file_pages - file_end);
    }
    if (elf.e_phoff >= header.p_offset && elf.e_phoff + table_bytes <= header.p_offset + header.p_filesz) {
      object.headers = start + (elf.e_phoff - header.p_offset);
    }
  }
  return object;
}

// Follows "#!" lines. As in Linux: one optional argument, then the script's path in place of argv[0].
std::expected<UniqueFd, LoadError> open_following_scripts(ProgramRequest& request) {
  for (int depth = 0; depth < 5; ++depth) {
    auto fd = open_program(request.path);
    if (!fd) return fd;
    std::array<char, 256> head{};
    const ssize_t got = ::pread(fd->get(), head.data(), head.size() - 1, 0);
    if (got < 2 || head[0] != '#' || head[1] != '!') return fd;
    std::string line(head.data() + 2);
    line.resize(std::min(line.find('\n'), line.size()));
    const auto trim = [](std::string& text) {
      text.erase(0, std::min(text.find_first_not_of(" \t"), text.size()));
      text.resize(text.find_last_not_of(" \t") + 1);
    };
    trim(line);
    const std::size_t space = std::min(line.find_first_of(" \t"), line.size());
    std::string interpreter = line.substr(0, space), argument = line.substr(space);
    trim(argument);
    if (interpreter.empty()) return refuse(126, "{}: its first line names no interpreter", request.path);
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
  return refuse(126, "{}: scripts nest too deeply", request.path);
}

std::expected<std::uint64_t, LoadError> make_stack(AddressSpace& space, const ProgramRequest& request,
                                                   const Object& program, std::uint64_t interpreter_base) {
  if (space.map(kStackTop - kStackBytes, kStackBytes, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) < 0) {
    return refuse(126, "{}: no memory for its stack", request.path);
  }
  std::uint64_t sp = kStackTop;
  std::uint64_t total = 0;
  for (const auto* list : {&request.arguments, &request.environment}) {
    for (const std::string& text : *list) total += text.size() + 1 + 8;
  }
  if (total > kStackBytes / 4) return refuse(126, "{}: Argument list too long", request.path);
  const auto push = [&](const void* bytes, std::size_t size) {
    sp -= size;
    std::memcpy(space.flat().host(sp), bytes, size);
    return sp;
  };
  const auto push_text = [&](const std::string& text) { return push(text.c_str(), text.size() + 1); };
  const std::uint64_t name = push_text(request.path);
  std::vector<std::uint64_t> words{request.arguments.size()};
  for (const std::string& text : request.arguments) words.push_back(push_text(text));
  words.push_back(0);
  for (const std::string& text : request.environment) words.push_back(push_text(text));
  words.push_back(0);
  std::array<std::byte, 16> random{};
  if (::getrandom(random.data(), random.size(), 0) < 0) return refuse(126, "no random numbers");
  const std::uint64_t random_at = push(random.data(), random.size());
  const std::array<std::pair<std::uint64_t, std::uint64_t>, 16> auxiliary{{
      {AT_PHDR, program.headers}, {AT_PHENT, sizeof(Elf64_Phdr)}, {AT_PHNUM, program.header_count},
      {AT_PAGESZ, kPageSize}, {AT_BASE, interpreter_base}, {AT_FLAGS, 0}, {AT_ENTRY, program.entry},
      {AT_UID, ::getuid()}, {AT_EUID, ::geteuid()}, {AT_GID, ::getgid()}, {AT_EGID, ::getegid()},
      {AT_HWCAP, kHwcap}, {AT_CLKTCK, 100}, {AT_RANDOM, random_at}, {AT_EXECFN, name}, {AT_SECURE, 0}}};
  for (const auto& [key, value] : auxiliary) words.insert(words.end(), {key, value});
  words.insert(words.end(), {AT_NULL, 0});
  sp = align_down(sp - words.size() * 8, 16);
  std::memcpy(space.flat().host(sp), words.data(), words.size() * 8);
  return sp;
}

}  // namespace

std::expected<Image, LoadError> load_program(AddressSpace& space, ProgramRequest& request) {
  auto fd = open_following_scripts(request);
  if (!fd) return std::unexpected(fd.error());
  auto program = load_object(space, request.path, fd->get(), true);
  if (!program) return std::unexpected(program.error());
  space.start_break_at(program->end);
  std::uint64_t pc = program->entry, interpreter_base = 0;
  if (!program->interpreter.empty()) {
    std::string path = request.library_prefix + program->interpreter;
    if (::access(path.c_str(), R_OK) != 0) path = program->interpreter;
    auto interpreter_fd = open_program(path);
    if (!interpreter_fd) {
      return refuse(127, "{}: its interpreter {} cannot be opened (-L DIR says where to look)", request.path, path);
    }
    auto interpreter = load_object(space, path, interpreter_fd->get(), false);
    if (!interpreter) return std::unexpected(interpreter.error());
    pc = interpreter->entry;
    interpreter_base = interpreter->bias;
  }
  auto sp = make_stack(space, request, *program, interpreter_base);
  if (!sp) return std::unexpected(sp.error());
  return Image{pc, *sp};
}

bool is_guest_program(const char* path) {
  const UniqueFd fd(::open(path, O_RDONLY | O_CLOEXEC));
  Elf64_Ehdr elf{};
  if (!fd || ::pread(fd.get(), &elf, sizeof elf, 0) < 2) return false;
  if (elf.e_ident[0] == '#' && elf.e_ident[1] == '!') return true;
  return std::memcmp(elf.e_ident, ELFMAG, SELFMAG) == 0 && elf.e_machine == EM_RISCV;
}

}  // namespace doppel::process
