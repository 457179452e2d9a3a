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

Result<std::vector<std::byte>> unwrap_kernel(std::vector<std::byte> file, const std::string& name,
                                             std::size_t limit_bytes) {
  const Bytes bytes = file;
  if (is_gzip(bytes)) return expand_gzip(bytes, name, limit_bytes);
  if (!is_zboot(bytes)) return file;

  const auto offset = read_at<std::uint32_t>(bytes, kZbootOffsetAt);
  const auto size = read_at<std::uint32_t>(bytes, kZbootSizeAt);
  const auto payload = offset && size ? slice(bytes, *offset, *size) : std::nullopt;
  if (!payload) return fail("{}: truncated: the compressed kernel in it is not complete", name);
  if (!has_text_at(bytes, kZbootTypeAt, "gzip")) {
    return fail("{}: a compressed EFI kernel; only its gzip form is supported, expand it first", name);
  }
  return expand_gzip(*payload, name, limit_bytes);
}

}  // namespace doppel
