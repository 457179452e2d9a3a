#include "device/virtio/blk/virtio_blk.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <limits>

#include "base/io_vector.h"
#include "base/log.h"

namespace doppel {
namespace {

// 5.2.3
constexpr unsigned kFeatureSegMax = 2, kFeatureReadonly = 5, kFeatureBlkSize = 6, kFeatureFlush = 9,
                   kFeatureTopology = 10, kFeatureConfigWce = 11, kFeatureDiscard = 13, kFeatureWriteZeroes = 14;

// 5.2.4, struct virtio_blk_config as far as our features reach
struct Config {
  std::uint64_t capacity_sectors = 0;
  std::uint32_t size_max = 0;
  std::uint32_t seg_max = 0;
  std::uint32_t geometry = 0;
  std::uint32_t blk_size = 0;
  std::uint8_t physical_block_exp = 0;
  std::uint8_t alignment_offset = 0;
  std::uint16_t min_io_size = 0;
  std::uint32_t opt_io_size = 0;
  std::uint8_t writeback = 0;
  std::uint8_t unused = 0;
  std::uint16_t num_queues = 0;
  std::uint32_t max_discard_sectors = 0;
  std::uint32_t max_discard_seg = 0;
  std::uint32_t discard_sector_alignment = 0;
  std::uint32_t max_write_zeroes_sectors = 0;
  std::uint32_t max_write_zeroes_seg = 0;
  std::uint8_t write_zeroes_may_unmap = 0;
  std::uint8_t unused_end[3] = {};
  std::uint32_t max_secure_erase_sectors = 0;
};
static_assert(sizeof(Config) == 64 && offsetof(Config, writeback) == 32);

// 5.2.6
struct Header {
  std::uint32_t type;
  std::uint32_t reserved;
  std::uint64_t sector;
};
static_assert(sizeof(Header) == 16);
constexpr std::uint32_t kTypeIn = 0, kTypeOut = 1, kTypeFlush = 4, kTypeGetId = 8, kTypeDiscard = 11,
                        kTypeWriteZeroes = 13;
constexpr std::uint8_t kStatusOk = 0, kStatusIoError = 1, kStatusUnsupported = 2;

struct Range {  // of a discard or write-zeroes request
  std::uint64_t sector;
  std::uint32_t sectors;
  std::uint32_t flags;
};
static_assert(sizeof(Range) == 16);
constexpr std::uint32_t kFlagUnmap = 1;

// What the host's page cache and file systems work in; less is read, changed and written.
constexpr std::uint32_t kHostBlockBytes = 4096;
// Drivers read ahead in proportion to what they are told is best: Linux two such pieces, so that the host fills one while
// the guest takes the other.
constexpr std::uint32_t kBestBytes = 1 << 20;

constexpr std::uint32_t kMaxRangeSectors = std::numeric_limits<std::uint32_t>::max() / kSectorSize;

// A sector number in bytes; one that no disk has becomes an offset that no disk has.
std::uint64_t sector_offset(std::uint64_t sector) {
  return sector <= std::numeric_limits<std::uint64_t>::max() / kSectorSize ? sector * kSectorSize
                                                                           : std::numeric_limits<std::uint64_t>::max();
}

}  // namespace

VirtioBlk::VirtioBlk(std::unique_ptr<BlockBackend> disk, std::string_view serial)
    : disk_(std::move(disk)) {
  std::memcpy(serial_.data(), serial.data(), std::min(serial.size(), kSerialBytes));
}

void VirtioBlk::attached() {
  disk_->on_ready([this] {
    const std::lock_guard lock(transport().monitor());
    complete_finished();
  });
}

std::uint64_t VirtioBlk::features() const {
  std::uint64_t features = 0;
  for (const unsigned feature : {kFeatureSegMax, kFeatureBlkSize, kFeatureFlush, kFeatureTopology, kFeatureConfigWce}) {
    features |= std::uint64_t{1} << feature;
  }
  if (disk_->readonly()) return features | std::uint64_t{1} << kFeatureReadonly;
  return features | std::uint64_t{1} << kFeatureDiscard | std::uint64_t{1} << kFeatureWriteZeroes;
}

void VirtioBlk::read_config(std::uint64_t offset, std::span<std::byte> into) const {
  Config config;
  config.capacity_sectors = disk_->size_bytes() / kSectorSize;
  config.seg_max = Virtqueue::kMaxSize - 2;  // beside the header and the status
  config.blk_size = kSectorSize;
  config.physical_block_exp = std::countr_zero(kHostBlockBytes / kSectorSize);
  config.min_io_size = kHostBlockBytes / kSectorSize;
  config.opt_io_size = kBestBytes / kSectorSize;
  config.writeback = write_back_;
  config.max_discard_sectors = kMaxRangeSectors;
  config.max_discard_seg = 1;
  config.discard_sector_alignment = kHostBlockBytes / kSectorSize;  // what host file systems can give back
  config.max_write_zeroes_sectors = kMaxRangeSectors;
  config.max_write_zeroes_seg = 1;
  config.write_zeroes_may_unmap = 1;
  std::ranges::fill(into, std::byte{0});
  if (offset >= sizeof config) return;
  const auto bytes = std::as_bytes(std::span(&config, 1)).subspan(offset);
  std::ranges::copy(bytes.first(std::min(bytes.size(), into.size())), into.begin());
}

void VirtioBlk::write_config(std::uint64_t offset, std::span<const std::byte> from) {
  if (offset == offsetof(Config, writeback) && from.size() == 1 && agreed(kFeatureConfigWce)) {
    write_back_ = from[0] != std::byte{0};
  }
}

void VirtioBlk::activate(std::uint64_t features) {
  VirtioDevice::activate(features);
  // 5.2.5: a driver that does not flush relies on a write-through cache.
  write_back_ = agreed(kFeatureFlush);
}

bool VirtioBlk::write_through() const { return !write_back_; }

void VirtioBlk::notify(unsigned index) {
  Virtqueue& queue = transport().queue(index);
  queue.suppress_notifications();
  do {
    const char* misuse = nullptr;
    while (misuse == nullptr) {
      Request* request = take_request();
      if (request == nullptr) break;
      DescriptorChain chain;
      if (!queue.pop(transport().memory(), request->parts, chain)) {
        idle_.push_back(request);
        break;
      }
      request->head = chain.head;
      const Parsed parsed = parse(*request, chain);
      (parsed == Parsed::kSubmit ? batch_ : idle_).push_back(request);
      if (parsed == Parsed::kFault) misuse = "a request has no header or no status byte";
    }
    // Whatever the driver did after them, requests that were taken are carried out.
    disk_->submit(batch_);
    batch_.clear();
    complete_finished();
    if (queue.fault() != Virtqueue::Fault::kNone) misuse = Virtqueue::describe(queue.fault());
    // Every entry of the queue is in flight, so the driver offers one of them a second time.
    if (idle_.empty() && requests_.size() == Virtqueue::kMaxSize && queue.has_waiting()) {
      misuse = "more requests are in flight than the queue has entries";
    }
    if (misuse != nullptr) return transport().fail(misuse);
  } while (queue.request_notifications());
}

// nullptr when as many are in flight as a queue has entries.
VirtioBlk::Request* VirtioBlk::take_request() {
  if (idle_.empty()) {
    if (requests_.size() == Virtqueue::kMaxSize) return nullptr;
    idle_.push_back(requests_.emplace_back(new Request).get());
  }
  auto* request = static_cast<Request*>(idle_.back());  // nothing else is in there
  idle_.pop_back();
  return request;
}

void VirtioBlk::complete_finished() {
  std::array<BlockRequest*, 64> finished;
  while (const std::size_t count = disk_->reap(finished)) {
    for (BlockRequest* block : std::span(finished).first(count)) {
      auto& request = static_cast<Request&>(*block);  // nothing else is submitted
      const bool ok = request.error == 0;
      const std::uint8_t status = ok ? kStatusOk : request.error == EOPNOTSUPP ? kStatusUnsupported : kStatusIoError;
      answer(request, status, ok ? request.written_bytes : 0);
      idle_.push_back(&request);
    }
  }
  if (transport().live()) transport().publish(0);
}

VirtioBlk::Parsed VirtioBlk::answer(Request& request, std::uint8_t status, std::uint32_t written_bytes) {
  *request.status = static_cast<std::byte>(status);
  transport().queue(0).push(request.head, written_bytes);
  return Parsed::kDone;
}

// Takes a chain apart (5.2.6): header, data, status, however the driver laid them out over descriptors (2.7.4).
VirtioBlk::Parsed VirtioBlk::parse(Request& request, DescriptorChain& chain) {
  Header header;
  if (gather(chain.readable, std::as_writable_bytes(std::span(&header, 1))) != sizeof header) return Parsed::kFault;
  drop_front(chain.readable, sizeof header);
  if (chain.writable.empty()) return Parsed::kFault;
  iovec& last = chain.writable.back();
  request.status = static_cast<std::byte*>(last.iov_base) + --last.iov_len;
  std::span<iovec> writable = chain.writable;
  if (last.iov_len == 0) writable = writable.first(writable.size() - 1);

  const std::uint64_t readable_bytes = total_bytes(chain.readable);
  const std::uint64_t writable_bytes = total_bytes(writable);
  request.durable = write_through();
  request.may_unmap = false;
  request.offset_bytes = sector_offset(header.sector);
  // With the status byte; a driver cannot tell a length beyond 4 GiB.
  const auto all_written = static_cast<std::uint32_t>(
      std::min<std::uint64_t>(writable_bytes + 1, std::numeric_limits<std::uint32_t>::max()));

  switch (header.type) {
    case kTypeIn:
    case kTypeOut: {
      const bool in = header.type == kTypeIn;
      request.kind = in ? BlockRequest::Kind::kRead : BlockRequest::Kind::kWrite;
      request.buffers = in ? writable : chain.readable;
      request.length_bytes = in ? writable_bytes : readable_bytes;
      request.written_bytes = in ? all_written : 1;
      if (request.length_bytes % kSectorSize != 0) return answer(request, kStatusIoError, 0);
      return Parsed::kSubmit;
    }
    case kTypeFlush:
      request.kind = BlockRequest::Kind::kFlush;
      request.buffers = {};
      request.written_bytes = 1;
      return Parsed::kSubmit;
    case kTypeGetId:
      // Read with nothing in flight to wait for. Room for less than the identity is left as it is.
      if (scatter(serial_, writable) != kSerialBytes) return answer(request, kStatusIoError, 0);
      return answer(request, kStatusOk, writable_bytes == kSerialBytes ? kSerialBytes + 1 : kSerialBytes);
    case kTypeDiscard:
      return parse_range(request, chain.readable, BlockRequest::Kind::kDiscard);
    case kTypeWriteZeroes:
      return parse_range(request, chain.readable, BlockRequest::Kind::kWriteZeroes);
    default:
      return answer(request, kStatusUnsupported, 0);
  }
}

VirtioBlk::Parsed VirtioBlk::parse_range(Request& request, std::span<const iovec> readable, BlockRequest::Kind kind) {
  Range range;
  if (total_bytes(readable) != sizeof range) return answer(request, kStatusUnsupported, 0);
  gather(readable, std::as_writable_bytes(std::span(&range, 1)));
  // 5.2.6.2: unmap means something for write-zeroes only; the other flags are reserved.
  const std::uint32_t known = kind == BlockRequest::Kind::kWriteZeroes ? kFlagUnmap : 0;
  if ((range.flags & ~known) != 0) return answer(request, kStatusUnsupported, 0);
  if (range.sectors > kMaxRangeSectors) return answer(request, kStatusIoError, 0);
  request.kind = kind;
  request.may_unmap = (range.flags & kFlagUnmap) != 0;
  request.offset_bytes = sector_offset(range.sector);
  request.length_bytes = std::uint64_t{range.sectors} * kSectorSize;
  request.buffers = {};
  request.written_bytes = 1;
  return Parsed::kSubmit;
}

void VirtioBlk::drain() {
  while (idle_.size() < requests_.size()) {
    disk_->wait();
    complete_finished();
  }
}

void VirtioBlk::flush() {
  BlockRequest flush{.kind = BlockRequest::Kind::kFlush};
  BlockRequest* const submitted[] = {&flush};
  disk_->submit(submitted);
  BlockRequest* done = nullptr;
  while (disk_->reap({&done, 1}) == 0) disk_->wait();
  if (flush.error != 0) log_error("{}: what the guest wrote last may be lost: {}", name(), std::strerror(flush.error));
}

void VirtioBlk::reset() {
  VirtioDevice::reset();
  write_back_ = true;
}

void VirtioBlk::save(StateWriter& writer) const {
  assert(idle_.size() == requests_.size());
  writer.number("write_back", write_back_);
}

Result<void> VirtioBlk::restore(const StateReader& reader) {
  return StateFields(reader).read("write_back", write_back_).result();
}

}  // namespace doppel
