#include "device/virtio/entropy/virtio_entropy.h"
#include "virtio/guest.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace doppel;
  using namespace doppel::fuzz;
  Input input(data, size);
  Guest guest([] { return std::make_unique<VirtioEntropy>(); }, [](Input&) {});
  guest.run(input);

  guest.start_over(1);
  const Part parts[] = {{Guest::kData.value, 64, true}};
  guest.request(0, parts);
  DOPPEL_FUZZ_CHECK(guest.answer(0) == 64u);
  return 0;
}
