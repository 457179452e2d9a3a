// The virtio console over a back end with little room and little to say. No byte is lost or made up.
#include "device/virtio/console/virtio_console.h"
#include "virtio/guest.h"

namespace {

using namespace doppel;
using namespace doppel::fuzz;

class FakeConsole final : public ConsoleBackend {
 public:
  std::size_t write(std::span<const std::byte> output) override {
    const std::size_t taken = std::min(output.size(), room);
    room -= taken;
    written += taken;
    return taken;
  }
  std::size_t read(std::span<std::byte> input) override {
    const std::size_t given = std::min(input.size(), waiting);
    std::ranges::fill(input.first(given), std::byte{'i'});
    waiting -= given;
    return given;
  }
  void set_listener(std::function<void()> ready) override { listener = std::move(ready); }

  std::size_t room = 0;
  std::size_t waiting = 0;
  std::uint64_t written = 0;
  std::function<void()> listener;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, size);
  FakeConsole console;
  Guest guest([&] { return std::make_unique<VirtioConsole>(console); },
              [&](Input& choices) {
                console.room += choices.take<std::uint8_t>();
                console.waiting += choices.take<std::uint8_t>();
                console.listener();
              });
  guest.run(input);

  console.waiting = 0;
  console.room = 5;
  guest.start_over(2);
  const std::uint64_t gpa = Guest::kData.value;
  const std::uint64_t written_before = console.written;
  const Part out[] = {{gpa, 8, false}};
  guest.request(1, out);
  DOPPEL_FUZZ_CHECK(!guest.answer(1));
  console.room = 100;
  console.listener();
  DOPPEL_FUZZ_CHECK(guest.answer(1) == 0u);
  DOPPEL_FUZZ_CHECK(console.written == written_before + 8);
  const Part in[] = {{gpa + 512, 64, true}};
  guest.request(0, in);
  DOPPEL_FUZZ_CHECK(!guest.answer(0));
  console.waiting = 9;
  console.listener();
  DOPPEL_FUZZ_CHECK(guest.answer(0) == 9u);
  return 0;
}
