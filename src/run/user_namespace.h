// A user and mounts of our own, for who may not mount in the host's: in a new user namespace the user is root, and the
// other users there are those that /etc/subuid and /etc/subgid give to them (subuid(5)), if any. newuidmap and newgidmap,
// which have the right, tell the kernel so. Before there are other threads.
#pragma once

#include "base/result.h"

namespace doppel {

Result<void> enter_user_namespace();

}  // namespace doppel
