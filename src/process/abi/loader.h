// Loads riscv64 Linux programs: ELF segments, the interpreter, the initial stack (System V gABI and RISC-V psABI).
//
// The file is untrusted: every number in it is checked before it is used.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "process/address_space.h"

namespace doppel::process {

struct ProgramRequest {
  std::string path;
  std::vector<std::string> arguments;    // argv, with argv[0]
  std::vector<std::string> environment;  // NAME=VALUE
  std::string library_prefix;            // where an interpreter is looked for first; may be empty
};

struct Image {
  std::uint64_t pc = 0;
  std::uint64_t sp = 0;
};

struct LoadError {
  Error error;
  int status;  // what a shell would exit with: 126 not executable, 127 not found
};

// A script is replaced by its interpreter in `request`.
std::expected<Image, LoadError> load_program(AddressSpace& space, ProgramRequest& request);

// Whether the file begins as a riscv64 ELF file or as a script: what load_program() takes.
bool is_guest_program(const char* path);

}  // namespace doppel::process
