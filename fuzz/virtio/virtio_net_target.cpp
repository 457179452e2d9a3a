// The virtio network card between a guest and a network that are both out of their minds.
#include "base/io_vector.h"
#include "device/virtio/net/virtio_net.h"
#include "virtio/guest.h"

namespace {

using namespace doppel;
using namespace doppel::fuzz;

struct Network {
  NetworkBackend::Receiver receiver;
  std::uint64_t sent_bytes = 0;
};

class FakeNetwork final : public NetworkBackend {
 public:
  explicit FakeNetwork(Network& network) : network_(network) {}
  void send(std::span<const iovec> frame) override {
    std::vector<std::byte> bytes(total_bytes(frame));
    DOPPEL_FUZZ_CHECK(!bytes.empty() && gather(frame, bytes) == bytes.size());
    network_.sent_bytes += bytes.size();
  }
  void set_receiver(Receiver receiver) override { network_.receiver = std::move(receiver); }
  void resume() override {}

 private:
  Network& network_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, size);
  Network network;
  Guest guest([&] { return std::make_unique<VirtioNet>(std::make_unique<FakeNetwork>(network), MacAddress::local(0)); },
              [&](Input& choices) {
                const std::vector<std::byte> frame(choices.take<std::uint16_t>() % 2000 + 1);
                network.receiver(frame);
              });
  guest.run(input);

  guest.start_over(2);
  const std::uint64_t gpa = Guest::kData.value;
  const std::uint64_t sent_before = network.sent_bytes;
  const Part out[] = {{gpa, 12 + 60, false}};
  guest.request(1, out);
  DOPPEL_FUZZ_CHECK(guest.answer(1) == 0u);
  DOPPEL_FUZZ_CHECK(network.sent_bytes == sent_before + 60);
  const Part in[] = {{gpa + 512, 1526, true}};
  guest.request(0, in);
  DOPPEL_FUZZ_CHECK(!guest.answer(0));
  DOPPEL_FUZZ_CHECK(network.receiver(std::vector<std::byte>(60)));
  DOPPEL_FUZZ_CHECK(guest.answer(0) == 72u);
  return 0;
}
