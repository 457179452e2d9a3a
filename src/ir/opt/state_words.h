// Facts about the 8-byte words of the guest state, for passes over kGet and kSet.
#pragma once

#include <cstdint>
#include <vector>

#include "ir/ir.h"

namespace doppel::ir::opt {

// The bytes of state that a kGet or kSet touches.
struct StateBytes {
  std::uint64_t offset;
  unsigned size;

  std::uint64_t first_word() const { return offset / 8; }
  std::uint64_t last_word() const { return (offset + size - 1) / 8; }
  // Of the bytes in `word`, lowest first.
  std::uint8_t mask_in(std::uint64_t word) const {
    unsigned mask = 0;
    for (unsigned byte = 0; byte < size; ++byte) {
      if ((offset + byte) / 8 == word) mask |= 1u << (offset + byte) % 8;
    }
    return static_cast<std::uint8_t>(mask);
  }
};

// One Fact a word, a default one at first. Words past the first few thousand have none: passes leave them alone.
template <class Fact>
class StateWords {
 public:
  StateWords() : entries_(buffer()) { forget(); }

  // Forgets everything, in constant time: entries of an older generation do not count.
  void forget() {
    if (++entries_.generation == 0) entries_ = Entries{.generation = 1};
  }

  // The word's fact; null if facts about it are not kept.
  Fact* find(std::uint64_t word) {
    if (word >= entries_.words.size()) return nullptr;
    Entry& entry = entries_.words[word];
    if (entry.generation != entries_.generation) entry = {entries_.generation, Fact{}};
    return &entry.fact;
  }

  // Calls visit(word, fact) for each word of `bytes` that facts are kept about.
  template <class Visit>
  void for_each(const StateBytes& bytes, Visit visit) {
    for (std::uint64_t word = bytes.first_word(); word <= bytes.last_word(); ++word) {
      if (Fact* fact = find(word)) visit(word, *fact);
    }
  }

 private:
  static constexpr std::size_t kWords = 4096;

  struct Entry {
    std::uint32_t generation = 0;
    Fact fact;
  };
  struct Entries {
    std::uint32_t generation = 0;
    std::vector<Entry> words = std::vector<Entry>(kWords);
  };

  static Entries& buffer() {
    thread_local Entries entries;
    return entries;
  }

  Entries& entries_;
};

}  // namespace doppel::ir::opt
