// Loads riscv64 Linux programs: scripts, segments, the interpreter, the initial stack (System V gABI, RISC-V psABI).
#pragma once

#include <cstdint>
#include <optional>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "process/address_space.h"

namespace doppel::process {

struct ProgramRequest {
  std::string path;
  std::vector<std::string> arguments;    // argv, with argv[0]
  std::vector<std::string> environment;  // NAME=VALUE
  std::string library_prefix;            // where an interpreter is looked for first; may be empty
  int descriptor = -1;                   // the program's file if it is open already; it is closed
};

// Where things lie, as /proc shows them.
struct Image {
  std::uint64_t pc = 0;
  std::uint64_t sp = 0;
  std::uint64_t vdso = 0;
  std::string path{};  // of the file that was loaded
  std::string name{};  // of what was asked for, without folders
  std::uint64_t code_start = 0, code_end = 0, data_start = 0, data_end = 0;
  std::uint64_t arguments_start = 0, arguments_end = 0, environment_start = 0, environment_end = 0;
  std::vector<std::uint64_t> auxiliary{};
};

struct LoadError {
  Error error;
  int status;  // what a shell would exit with: 126 not executable, 127 not found
  int number;  // errno of an execve()
};

// What load_program() asks while it works, and where it leaves the program's file. All may be empty.
struct LoadHooks {
  // Maps the vDSO, now that it is known where the stack will grow, and says where it lies.
  std::function<Result<std::uint64_t>()> map_vdso{};
  // A number by which to choose where code lies, for the program in the open file; else it is chosen at random.
  std::function<std::optional<std::uint64_t>(int file)> code_layout{};
  std::function<void(UniqueFd file)> keep_file{};
};

// A script is replaced by its interpreter in `request`.
std::expected<Image, LoadError> load_program(AddressSpace& space, ProgramRequest& request,
                                             const LoadHooks& hooks = {});

enum class ProgramKind : std::uint8_t { kGuest, kHost };

// What load_program() would say, as far as can be told without loading; kHost is for the host's kernel to judge.
std::expected<ProgramKind, LoadError> inspect_program(ProgramRequest request);

inline constexpr std::size_t kLongestArgument = 32 * 4096;  // MAX_ARG_STRLEN
// How much arguments and environment may take together: a quarter of the limit for stacks.
std::size_t argument_bytes();

}  // namespace doppel::process
