// The bytes that a fuzzer made up, read as numbers: the generators' one source of choices. Past the end everything
// is zero, so every input means something.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

namespace doppel::fuzz {

class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : rest_(data, size) {}

  bool empty() const { return rest_.empty(); }

  template <class T>
  T take() {
    static_assert(std::is_unsigned_v<T>);
    T value = 0;
    const std::span<const std::uint8_t> bytes = take_bytes(sizeof value);
    std::memcpy(&value, bytes.data(), bytes.size());
    return value;
  }
  // 0 to limit - 1.
  std::uint32_t below(std::uint32_t limit) {
    return limit <= 256 ? take<std::uint8_t>() % limit : take<std::uint32_t>() % limit;
  }
  bool one_in(std::uint32_t count) { return below(count) == 0; }

  // At most `size` bytes.
  std::span<const std::uint8_t> take_bytes(std::size_t size) {
    const auto taken = rest_.first(std::min(size, rest_.size()));
    rest_ = rest_.subspan(taken.size());
    return taken;
  }

 private:
  std::span<const std::uint8_t> rest_;
};

// What must hold whatever the input is. Unlike assert() it is there in every build.
#define DOPPEL_FUZZ_CHECK(condition) \
  do {                               \
    if (!(condition)) __builtin_trap(); \
  } while (false)

}  // namespace doppel::fuzz
