#include "storage/disk.h"

#include <span>
#include <utility>
#include <vector>

#include "base/option_list.h"
#include "storage/raw_image.h"

namespace doppel {
namespace {

constexpr std::size_t kSerialBytes = 20;  // virtio 1.2, 5.2.6: VIRTIO_BLK_ID_BYTES

Result<DiskFormat> parse_format(std::string_view name) {
  if (name == "raw") return DiskFormat::kRaw;
  return fail("--disk: unknown format '{}' (known: raw)", name);
}

Result<CacheMode> parse_cache(std::string_view name) {
  if (name == "writeback") return CacheMode::kWriteback;
  if (name == "none") return CacheMode::kNone;
  if (name == "unsafe") return CacheMode::kUnsafe;
  return fail("--disk: unknown cache mode '{}' (known: writeback, none, unsafe)", name);
}

}  // namespace

Result<DiskOptions> parse_disk_options(std::string_view text) {
  DiskOptions options;
  const std::vector<NamedOption> list = split_options(text);
  options.path = list.front().text;
  if (options.path.empty()) return fail("--disk: the file name is missing in '{}'", text);
  for (const NamedOption& option : std::span(list).subspan(1)) {
    if (option.name == "readonly" && !option.value) {
      options.readonly = true;
    } else if (option.name == "format" && option.value) {
      auto format = parse_format(*option.value);
      if (!format) return std::unexpected(format.error());
      options.format = *format;
    } else if (option.name == "cache" && option.value) {
      auto cache = parse_cache(*option.value);
      if (!cache) return std::unexpected(cache.error());
      options.cache = *cache;
    } else if (option.name == "serial" && option.value) {
      if (option.value->size() > kSerialBytes) {
        return fail("--disk: the serial '{}' is longer than {} bytes", *option.value, kSerialBytes);
      }
      options.serial = *option.value;
    } else {
      return fail("--disk: unknown option '{}' (known: format=, readonly, serial=, cache=)", option.text);
    }
  }
  return options;
}

Result<std::unique_ptr<BlockBackend>> open_disk(const DiskOptions& options, EventLoop& loop,
                                                IoEngineKind engine) {
  switch (options.format) {
    case DiskFormat::kRaw:
      return RawImage::open(options, loop, engine);
  }
  std::unreachable();
}

}  // namespace doppel
