#include "machine/boot/compression.h"

#include <zlib.h>

#include <algorithm>
#include <memory>

namespace doppel {
namespace {

// Linux, drivers/firmware/efi/libstub/zboot-header.S: "MZ", then "zimg", the payload's offset and size, and
// at 24 the name of the compression, zero-terminated.
constexpr std::uint64_t kZbootMagicAt = 4, kZbootOffsetAt = 8, kZbootSizeAt = 12, kZbootTypeAt = 24;

bool is_zboot(Bytes bytes) {
  return has_text_at(bytes, 0, "MZ") && has_text_at(bytes, kZbootMagicAt, "zimg");
}

// The gzip member in `file`, which is one or a zboot image.
Result<Bytes> packed_part(Bytes file, const std::string& name) {
  if (is_gzip(file)) return file;
  const auto offset = read_at<std::uint32_t>(file, kZbootOffsetAt);
  const auto size = read_at<std::uint32_t>(file, kZbootSizeAt);
  const auto payload = offset && size ? slice(file, *offset, *size) : std::nullopt;
  if (!payload) return fail("{}: truncated: the compressed kernel in it is not complete", name);
  if (!has_text_at(file, kZbootTypeAt, "gzip")) {
    return fail("{}: a compressed EFI kernel; only its gzip form is supported, expand it first", name);
  }
  return *payload;
}

}  // namespace

bool is_gzip(Bytes bytes) { return has_text_at(bytes, 0, "\x1f\x8b\x08"); }

Result<std::vector<std::byte>> expand_gzip(Bytes bytes, const std::string& name, std::size_t limit_bytes) {
  z_stream stream{};
  constexpr int kGzipOnly = 16 + MAX_WBITS;
  if (::inflateInit2(&stream, kGzipOnly) != Z_OK) return fail("{}: zlib cannot start", name);
  const std::unique_ptr<z_stream, int (*)(z_stream*)> ended(&stream, ::inflateEnd);

  // zlib's interface predates const: it only reads from next_in.
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(std::min<std::size_t>(bytes.size(), ~uInt{0}));

  std::vector<std::byte> expanded;
  int status = Z_OK;
  while (status == Z_OK) {
    const std::size_t used = expanded.size();
    if (used > limit_bytes) {
      return fail("{}: expands to more than the {} MiB that fit into the machine's memory", name,
                  limit_bytes >> 20);
    }
    const std::size_t step = std::min(std::max<std::size_t>(used, 1 << 20), limit_bytes + 1 - used);
    expanded.resize(used + step);
    stream.next_out = reinterpret_cast<Bytef*>(expanded.data() + used);
    stream.avail_out = static_cast<uInt>(std::min<std::size_t>(step, ~uInt{0}));
    const uInt offered = stream.avail_out;
    status = ::inflate(&stream, Z_NO_FLUSH);
    expanded.resize(used + (offered - stream.avail_out));
  }
  if (status == Z_STREAM_END) return expanded;
  if (status == Z_BUF_ERROR) return fail("{}: truncated: its gzip data end early", name);
  return fail("{}: its gzip data are damaged at offset {:#x}", name, bytes.size() - stream.avail_in);
}

Result<BootFile> unwrap_kernel(BootFile file, std::size_t limit_bytes) {
  if (!is_gzip(file.head()) && !is_zboot(file.head())) return file;
  const auto bytes = file.bytes();
  if (!bytes) return std::unexpected(bytes.error());
  const auto payload = packed_part(*bytes, file.name());
  if (!payload) return std::unexpected(payload.error());
  auto expanded = expand_gzip(*payload, file.name(), limit_bytes);
  if (!expanded) return std::unexpected(expanded.error());
  return BootFile(file.name(), std::move(*expanded));
}

}  // namespace doppel
