// The queue core alone, over memory that is the input: the rings and descriptors are whatever the bytes say.
//
// The oracle: every part handed out lies in RAM and is not empty, readable before writable, no more of them than
// there is room for; the used ring shows what was pushed; a faulty queue stays silent.
#include <algorithm>
#include <array>
#include <vector>

#include "device/virtio/virtqueue.h"
#include "input.h"
#include "memory/guest_memory.h"

namespace {

using namespace doppel;
using namespace doppel::fuzz;

constexpr GuestPhysical kRam{0x1000};
constexpr std::uint64_t kRamBytes = 0x3000;

// RAM as the core needs it. Of exact size on the heap, so that a sanitizer sees a step past its end.
struct Memory {
  std::unique_ptr<std::byte[]> bytes = std::make_unique<std::byte[]>(kRamBytes);

  std::byte* host(GuestPhysical gpa, std::uint64_t size) const {
    return GuestPhysicalRange{kRam, kRamBytes}.contains(gpa, size) ? bytes.get() + (gpa - kRam) : nullptr;
  }
};

GuestPhysical take_gpa(Input& input) {
  return GuestPhysical{input.one_in(16) ? input.take<std::uint64_t>() : kRam.value + input.take<std::uint16_t>() % 0x3100};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, size);
  Memory memory;
  Virtqueue queue;
  std::array<iovec, Virtqueue::kMaxSize> storage;
  std::vector<std::uint16_t> taken;

  while (!input.empty()) {
    switch (input.below(8)) {
      case 0: {
        Virtqueue::Layout layout;
        layout.size = input.one_in(8) ? input.take<std::uint16_t>() : static_cast<std::uint16_t>(1u << input.below(9));
        // Aligned more often than not.
        const std::uint64_t mask = input.one_in(8) ? ~std::uint64_t{0} : ~std::uint64_t{15};
        layout.descriptors = GuestPhysical{take_gpa(input).value & mask};
        layout.driver = GuestPhysical{take_gpa(input).value & mask};
        layout.device = GuestPhysical{take_gpa(input).value & mask};
        queue.enable(layout, input.one_in(2), memory);
        taken.clear();
        break;
      }
      case 1:
      case 2: {  // contents
        const std::uint64_t at = input.take<std::uint16_t>() % kRamBytes;
        const auto bytes = input.take_bytes(std::min<std::uint64_t>(input.take<std::uint8_t>(), kRamBytes - at));
        std::memcpy(memory.bytes.get() + at, bytes.data(), bytes.size());
        break;
      }
      case 3: {  // a plausible descriptor
        const std::uint64_t at = (input.take<std::uint16_t>() % kRamBytes) & ~std::uint64_t{15};
        const std::uint64_t gpa = take_gpa(input).value;
        const std::uint32_t length = input.take<std::uint8_t>();
        const std::uint16_t flags_and_next[] = {static_cast<std::uint16_t>(input.below(8)), input.take<std::uint8_t>()};
        std::memcpy(memory.bytes.get() + at, &gpa, 8);
        std::memcpy(memory.bytes.get() + at + 8, &length, 4);
        std::memcpy(memory.bytes.get() + at + 12, flags_and_next, 4);
        break;
      }
      case 4:
      case 5: {
        DescriptorChain chain;
        if (!queue.pop(memory, storage, chain)) break;
        DOPPEL_FUZZ_CHECK(queue.fault() == Virtqueue::Fault::kNone);
        const std::size_t parts = chain.readable.size() + chain.writable.size();
        DOPPEL_FUZZ_CHECK(parts > 0 && parts <= storage.size());
        DOPPEL_FUZZ_CHECK(chain.writable.empty() || chain.readable.empty() ||
                          chain.readable.data() + chain.readable.size() == chain.writable.data());
        for (const iovec& part : std::span(storage).first(parts)) {
          auto* start = static_cast<std::byte*>(part.iov_base);
          DOPPEL_FUZZ_CHECK(part.iov_len > 0 && start >= memory.bytes.get() && part.iov_len <= kRamBytes &&
                            start + part.iov_len <= memory.bytes.get() + kRamBytes);
        }
        taken.push_back(chain.head);
        break;
      }
      case 6:
        if (!taken.empty()) {
          queue.push(taken.back(), input.take<std::uint32_t>());
          taken.pop_back();
        }
        if (input.one_in(2)) std::ignore = queue.publish();
        DOPPEL_FUZZ_CHECK(queue.fault() == Virtqueue::Fault::kNone || !queue.publish());
        break;
      default:
        queue.suppress_notifications();
        if (queue.request_notifications()) DOPPEL_FUZZ_CHECK(queue.has_waiting());
        break;
    }
  }
  return 0;
}
