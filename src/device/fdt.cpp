#include "device/fdt.h"

#include <cassert>

#include <fmt/format.h>

extern "C" {
#include <libfdt.h>
}

namespace doppel {

template <class Step>
void FdtBuilder::put(Step step) {
  int result = step();
  while (result == -FDT_ERR_NOSPACE) {
    std::vector<std::byte> larger(blob_.size() * 2);
    [[maybe_unused]] const int moved = fdt_resize(blob_.data(), larger.data(), static_cast<int>(larger.size()));
    assert(moved == 0);
    blob_.swap(larger);
    result = step();
  }
  assert(result == 0 && "nodes and properties out of order");
}

FdtBuilder::FdtBuilder() : blob_(4096) {
  put([&] { return fdt_create(blob_.data(), static_cast<int>(blob_.size())); });
  put([&] { return fdt_finish_reservemap(blob_.data()); });
  put([&] { return fdt_begin_node(blob_.data(), ""); });
}

FdtBuilder::Node::~Node() {
  fdt_.put([&] { return fdt_end_node(fdt_.blob_.data()); });
}

FdtBuilder::Node FdtBuilder::node(const std::string& name) {
  put([&] { return fdt_begin_node(blob_.data(), name.c_str()); });
  return Node(*this);
}

FdtBuilder::Node FdtBuilder::node(std::string_view name, std::uint64_t unit_address) {
  return node(fmt::format("{}@{:x}", name, unit_address));
}

void FdtBuilder::flag(const char* name) { bytes(name, {}); }

void FdtBuilder::bytes(const char* name, std::span<const std::byte> value) {
  put([&] { return fdt_property(blob_.data(), name, value.data(), static_cast<int>(value.size())); });
}

void FdtBuilder::text(const char* name, std::string_view value) { texts(name, {value}); }

void FdtBuilder::texts(const char* name, std::initializer_list<std::string_view> values) {
  std::string joined;
  for (const std::string_view value : values) joined.append(value).push_back('\0');
  bytes(name, std::as_bytes(std::span(joined)));
}

void FdtBuilder::cells(const char* name, std::span<const std::uint32_t> values) {
  std::vector<std::byte> big_endian;
  big_endian.reserve(values.size() * 4);
  for (const std::uint32_t value : values) {
    for (int shift = 24; shift >= 0; shift -= 8) big_endian.push_back(static_cast<std::byte>(value >> shift));
  }
  bytes(name, big_endian);
}

void FdtBuilder::number64(const char* name, std::uint64_t value) {
  cells(name, {static_cast<std::uint32_t>(value >> 32), static_cast<std::uint32_t>(value)});
}

void FdtBuilder::reg(GuestPhysicalRange range) {
  const std::uint64_t start = range.start.value;
  cells("reg", {static_cast<std::uint32_t>(start >> 32), static_cast<std::uint32_t>(start),
                static_cast<std::uint32_t>(range.size_bytes >> 32),
                static_cast<std::uint32_t>(range.size_bytes)});
}

void FdtBuilder::interrupt(const Placement& placement) {
  if (placement.irq == 0) return;
  cells("interrupt-parent", {placement.interrupt_parent});
  cells("interrupts", {placement.irq});
}

std::vector<std::byte> FdtBuilder::finish() {
  put([&] { return fdt_end_node(blob_.data()); });
  put([&] { return fdt_finish(blob_.data()); });
  blob_.resize(fdt_totalsize(blob_.data()));
  return std::move(blob_);
}

}  // namespace doppel
