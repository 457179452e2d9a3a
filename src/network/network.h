// A network card's far end as the user names it, and making it: the one place that knows which kinds exist.
#pragma once

#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "base/event_loop.h"
#include "base/result.h"
#include "network/forward.h"
#include "network/mac_address.h"
#include "network/network_backend.h"

namespace doppel {

enum class NetworkKind : std::uint8_t { kNone, kUser };

struct NetworkOptions {
  NetworkKind kind = NetworkKind::kUser;
  std::vector<ForwardRule> forwards = {};
  std::optional<MacAddress> mac = {};
  bool ipv6 = true;  // kUser
};

// "user[,forward=tcp:8080:80]...[,mac=ADDRESS][,ipv6=on|off]", or "none".
Result<NetworkOptions> parse_network_options(std::string_view text);

// For every kind but kNone. `loop` outlives the result, which is made and destroyed on the loop's thread or while
// the loop does not run.
Result<std::unique_ptr<NetworkBackend>> open_network(const NetworkOptions& options, EventLoop& loop);

}  // namespace doppel
