// Writes a flattened device tree (Devicetree Specification 0.4, chapter 5) from the root down, over libfdt's
// sequential writer. Single-threaded. Properties of a node come before its child nodes.
//
//   FdtBuilder fdt;
//   fdt.cells("#address-cells", {2});
//   {
//     const auto soc = fdt.node("soc");   // open until the end of its scope
//     fdt.text("compatible", "simple-bus");
//   }
//   std::vector<std::byte> blob = fdt.finish();
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "memory/address.h"

namespace doppel {

using Phandle = std::uint32_t;  // a node's number, by which other nodes refer to it; 0 is none

// Where a board put a device: what the device's node says beyond what the device knows of itself.
struct Placement {
  GuestPhysicalRange range = {};
  unsigned irq = 0;              // source number at `interrupt_parent`; 0 for none
  Phandle interrupt_parent = 0;  // the PLIC
  Phandle self = 0;              // the number that the device's own node gets; 0 for none
  std::span<const Phandle> hart_controllers = {};  // the harts' riscv,cpu-intc nodes, by hart index
};

class FdtBuilder {
 public:
  // Closes its node when destroyed.
  class [[nodiscard]] Node {
   public:
    ~Node();
    Node(const Node&) = delete;
    Node& operator=(const Node&) = delete;

   private:
    friend FdtBuilder;
    explicit Node(FdtBuilder& fdt) : fdt_(fdt) {}
    FdtBuilder& fdt_;
  };

  FdtBuilder();  // opens the root node

  Node node(const std::string& name);
  Node node(std::string_view name, std::uint64_t unit_address);  // "name@unit_address", in hex

  void flag(const char* name);
  void bytes(const char* name, std::span<const std::byte> value);
  void text(const char* name, std::string_view value);
  void texts(const char* name, std::initializer_list<std::string_view> values);
  void cells(const char* name, std::span<const std::uint32_t> values);
  void cells(const char* name, std::initializer_list<std::uint32_t> values) {
    cells(name, std::span(values.begin(), values.size()));
  }
  void number64(const char* name, std::uint64_t value);

  // `reg` for a parent with two address cells and two size cells.
  void reg(GuestPhysicalRange range);
  // `interrupts` and `interrupt-parent`, where the placement has them.
  void interrupt(const Placement& placement);

  // Closes the root. The builder is spent afterwards.
  std::vector<std::byte> finish();

 private:
  // Runs a libfdt writer call, with a larger buffer as often as it asks for one.
  template <class Step>
  void put(Step step);

  std::vector<std::byte> blob_;
};

}  // namespace doppel
