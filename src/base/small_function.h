// A function object that keeps what it captures inside itself: for many that are made and called once.
//
// Belongs to one thread. Captures must need no destructor.
#pragma once

#include <cstddef>
#include <new>
#include <type_traits>

namespace doppel {

template <std::size_t kBytes>
class SmallFunction {
 public:
  template <class Function>
    requires(sizeof(Function) <= kBytes && std::is_trivially_destructible_v<Function> &&
             !std::is_same_v<Function, SmallFunction>)
  SmallFunction(const Function& function)  // NOLINT: lambdas become one where one is wanted
      : call_([](void* captures) { (*static_cast<Function*>(captures))(); }),
        copy_([](const void* from, void* to) { new (to) Function(*static_cast<const Function*>(from)); }) {
    copy_(&function, captures_);
  }
  SmallFunction(const SmallFunction& other) : call_(other.call_), copy_(other.copy_) {
    copy_(other.captures_, captures_);
  }
  SmallFunction& operator=(const SmallFunction&) = delete;

  void operator()() { call_(captures_); }

 private:
  void (*call_)(void*);
  void (*copy_)(const void* from, void* to);
  alignas(std::max_align_t) std::byte captures_[kBytes];
};

}  // namespace doppel
