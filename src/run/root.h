// Makes a directory the root of everything this process and its children see, as a container does: with the host's
// /proc, /dev and /sys inside, and what --bind adds. Runs once, while there is one thread.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace doppel {

struct Bind {
  std::string source;  // on the host
  std::string target;  // in the new root, absolute
};

// "SRC" or "SRC:DST".
Result<Bind> parse_bind(const std::string& text);

// The working directory is then the new root. Needs no privilege where the host allows user namespaces: the user is
// then root (uid 0) to itself, and nobody else exists.
Result<void> enter_root(const std::string& directory, const std::vector<Bind>& binds);

}  // namespace doppel
