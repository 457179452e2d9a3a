// The virtio block device over a disk in memory that finishes requests when the input says so.
#include <deque>

#include "base/io_vector.h"
#include "device/virtio/blk/virtio_blk.h"
#include "virtio/guest.h"

namespace {

using namespace doppel;
using namespace doppel::fuzz;

constexpr std::uint64_t kDiskBytes = 64 * 512;

struct Disk {
  std::vector<std::byte> content = std::vector<std::byte>(kDiskBytes);
  bool hold = false;
  std::deque<BlockRequest*> held;
  std::deque<BlockRequest*> finished;
  std::function<void()> ready;

  void release() {
    finished.insert(finished.end(), held.begin(), held.end());
    held.clear();
  }
};

class MemoryDisk final : public BlockBackend {
 public:
  explicit MemoryDisk(Disk& disk) : disk_(disk) {}
  ~MemoryDisk() override { DOPPEL_FUZZ_CHECK(disk_.held.empty() && disk_.finished.empty()); }

  std::uint64_t size_bytes() const override { return kDiskBytes; }
  bool readonly() const override { return false; }
  void submit(std::span<BlockRequest* const> requests) override {
    for (BlockRequest* request : requests) {
      request->error = carry_out(*request);
      (disk_.hold ? disk_.held : disk_.finished).push_back(request);
    }
  }
  std::size_t reap(std::span<BlockRequest*> into) override {
    std::size_t count = 0;
    while (count < into.size() && !disk_.finished.empty()) {
      into[count++] = disk_.finished.front();
      disk_.finished.pop_front();
    }
    return count;
  }
  void wait() override { disk_.release(); }
  void on_ready(std::function<void()> callback) override { disk_.ready = std::move(callback); }

 private:
  int carry_out(const BlockRequest& request) {
    if (request.kind == BlockRequest::Kind::kFlush) return 0;
    if (request.offset_bytes > kDiskBytes || request.length_bytes > kDiskBytes - request.offset_bytes) return EINVAL;
    const auto range = std::span(disk_.content).subspan(request.offset_bytes, request.length_bytes);
    switch (request.kind) {
      case BlockRequest::Kind::kRead:
        DOPPEL_FUZZ_CHECK(total_bytes(request.buffers) == range.size());
        scatter(range, request.buffers);
        break;
      case BlockRequest::Kind::kWrite:
        DOPPEL_FUZZ_CHECK(total_bytes(request.buffers) == range.size());
        gather(request.buffers, range);
        break;
      default: std::ranges::fill(range, std::byte{0});
    }
    return 0;
  }

  Disk& disk_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, size);
  Disk disk;
  Guest guest([&] { return std::make_unique<VirtioBlk>(std::make_unique<MemoryDisk>(disk), "fuzz"); },
              [&](Input& choices) {
                disk.hold = choices.one_in(2);
                disk.release();
                disk.ready();
              });
  guest.run(input);

  disk.hold = false;
  guest.start_over(1);
  std::byte* at = Guest::host(Guest::kData);
  Guest::poke(at, std::uint32_t{0});       // VIRTIO_BLK_T_IN
  Guest::poke(at + 8, std::uint64_t{7});   // sector
  Guest::poke(at + 16, std::uint8_t{99});  // status
  const std::uint64_t gpa = Guest::kData.value;
  const Part parts[] = {{gpa, 16, false}, {gpa + 512, 512, true}, {gpa + 16, 1, true}};
  guest.request(0, parts);
  DOPPEL_FUZZ_CHECK(guest.answer(0) == 513u);
  DOPPEL_FUZZ_CHECK(Guest::peek<std::uint8_t>(at + 16) == 0);
  DOPPEL_FUZZ_CHECK(std::equal(at + 512, at + 1024, disk.content.begin() + 7 * 512));
  return 0;
}
