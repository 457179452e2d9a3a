// A disk as the user names it, and opening it: the one place that knows which formats exist.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/event_loop.h"
#include "base/result.h"
#include "storage/block_backend.h"
#include "storage/io_engine.h"

namespace doppel {

enum class DiskFormat : std::uint8_t { kRaw };

enum class CacheMode : std::uint8_t {
  kWriteback,  // through the host's page cache; the guest's flushes reach stable storage
  kNone,       // past the host's page cache (O_DIRECT); flushes as above
  kUnsafe,     // flushes are ignored: a host crash may lose everything written
};

struct DiskOptions {
  std::string path = {};
  DiskFormat format = DiskFormat::kRaw;
  CacheMode cache = CacheMode::kWriteback;
  bool readonly = false;
  std::string serial = {};  // what the guest sees as the disk's identity; at most 20 bytes
};

// "FILE[,format=raw][,readonly][,serial=TEXT][,cache=writeback|none|unsafe]". A comma that belongs to a value
// is written twice.
Result<DiskOptions> parse_disk_options(std::string_view text);

// Opens and locks the image: any number of readers, or one writer, across all virtual machines of the host.
// `loop` outlives the disk, which is made and destroyed on its thread or while it does not run.
Result<std::unique_ptr<BlockBackend>> open_disk(const DiskOptions& options, EventLoop& loop,
                                                IoEngineKind engine = IoEngineKind::kAutomatic);

}  // namespace doppel
