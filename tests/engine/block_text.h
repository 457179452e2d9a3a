// What becomes of guest code, as text: its instructions, their IR before and after the passes, and the host's code.
// Nothing depends on where things lie: parts of the guest's state have names, and jumps have labels.
#pragma once

#include <Zydis/Zydis.h>

#include <array>
#include <cstdlib>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "engine/translator_engine.h"
#include "ir/opt/optimize.h"
#include "ir/text.h"
#include "isa/riscv/lift.h"
#include "translator/region.h"

namespace doppel::engine_test {

struct BlockText {
  std::size_t instructions = 0;
  std::string guest, lifted, optimized, host;
};

namespace block_text {

inline const std::map<std::uint64_t, std::string>& names_in_state() {
  static const auto names = [] {
    using riscv::HartState;
    std::map<std::uint64_t, std::string> map;
    for (unsigned i = 0; i < 32; ++i) map[riscv::state_offset::x(i)] = riscv::integer_register_names()[i];
    for (unsigned i = 0; i < 32; ++i) map[riscv::state_offset::f(i)] = riscv::float_register_names()[i];
#define DOPPEL_NAME(field) map[offsetof(HartState, field)] = #field;
    DOPPEL_NAME(pc)
    DOPPEL_NAME(privilege)
    DOPPEL_NAME(mstatus)
    DOPPEL_NAME(stvec)
    DOPPEL_NAME(sscratch)
    DOPPEL_NAME(sepc)
    DOPPEL_NAME(scause)
    DOPPEL_NAME(stval)
    DOPPEL_NAME(interrupt_waiting)
    map[offsetof(HartState, frame) + offsetof(isa::CodeFrame, floating_closed)] = "floating_closed";
#undef DOPPEL_NAME
    const x64::StateOffsets o = TranslatorEngine::state_offsets();
    for (const auto& [offset, name] :
         std::initializer_list<std::pair<std::uint32_t, const char*>>{
             {o.page, "page"}, {o.tlb, "tlb"}, {o.code, "code"}, {o.exit, "exit"},
             {o.read.full, "read"}, {o.read.bare, "read.bare"}, {o.write.full, "write"},
             {o.write.bare, "write.bare"}, {o.step.full, "step"}, {o.step.bare, "step.bare"}, {o.budget, "budget"}, {o.exit_reason, "exit_reason"},
             {o.exit_site, "exit_site"}, {o.stack, "stack"}, {o.clock, "clock"}}) {
      map[offset] = name;
    }
    for (unsigned i = 0; i < x64::kLeaveReasons; ++i) {
      map[o.leave + 8 * i] = std::array{"leave.go", "leave.link", "leave.step", "leave.spent"}[i];
    }
    for (unsigned i = 0; i < x64::kSpillSlots; ++i) map[o.slots + 8 * i] = fmt::format("slot {}", i);
    return map;
  }();
  return names;
}

// `text` with the number between each `before` and `after`, times `sign` plus `bias` an offset in the state, replaced by
// the name of what is there.
inline std::string name_state(const std::string& text, std::string_view before, std::string_view after,
                              std::int64_t sign = 1, std::int64_t bias = 0) {
  std::string result;
  std::size_t done = 0;
  for (std::size_t at; (at = text.find(before, done)) != std::string::npos;) {
    const std::size_t begin = at + before.size();
    const std::size_t end = text.find(after, begin);
    const std::string number = text.substr(begin, end - begin);
    char* parsed = nullptr;
    const std::int64_t offset = bias + sign * std::strtoll(number.c_str(), &parsed, 0);
    const auto name = names_in_state().find(static_cast<std::uint64_t>(offset));
    const bool known = *parsed == 0 && !number.empty() && name != names_in_state().end();
    result.append(text, done, begin - done).append(known ? name->second : number);
    if (known && sign < 0) result[result.size() - name->second.size() - 1] = '+';
    done = begin + number.size();
  }
  return result + text.substr(done);
}

// Likewise of fields of the TLB, at the ends of addresses.
inline std::string name_tlb(std::string text) {
  static const auto names = [] {
    const x64::StateOffsets o = TranslatorEngine::state_offsets();
    std::map<std::uint64_t, std::string> map;
    for (const auto& [offset, name] : std::initializer_list<std::pair<std::uint32_t, const char*>>{
             {o.tlb_read, "read"}, {o.tlb_write, "write"}, {o.tlb_fetch, "fetch"}}) {
      map[offset] = name;
      map[offset + 8] = fmt::format("{}.addend", name);
    }
    for (unsigned i = 0; i < x64::kPageSlots; ++i) {
      const std::string place =
          fmt::format("{} {}", riscv::integer_register_names()[i / 2], i % 2 == 0 ? "read" : "write");
      map[o.tlb_slots + 16 * i] = place;
      map[o.tlb_slots + 16 * i + 8] = place + ".addend";
      map[o.tlb_slot_refills + i] = place + ".refills";
    }
    return map;
  }();
  const std::size_t segment = text.find("gs:[");
  if (segment == std::string::npos) return text;
  constexpr std::string_view kFirst = "gs:[rcx]";
  if (text.substr(segment, kFirst.size()) == kFirst) text.replace(segment, kFirst.size(), "gs:[rcx+0]");
  const std::size_t plus = text.find('+', segment);
  const std::size_t begin = plus == std::string::npos ? segment + 4 : plus + 1;
  const std::size_t end = text.find(']', begin);
  const auto name = names.find(std::strtoull(text.substr(begin, end - begin).c_str(), nullptr, 0));
  return name == names.end() ? text : text.replace(begin, end - begin, name->second);
}

inline std::string print_ir(const ir::Block& block) {
  const std::string text = ir::print(block);
  std::string named;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const std::string line = text.substr(at, end - at);
    const bool state = line.find(" = get.") != std::string::npos || line.find("  set [") != std::string::npos;
    named += (state ? name_state(line, "[", "]") : line) + '\n';
    at = end + 1;
  }
  return named;
}

inline std::string print_host(std::span<const std::byte> code) {
  ZydisDecoder decoder;
  ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  ZydisFormatter formatter;
  ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);

  struct Line {
    std::string text;
    std::optional<std::uint64_t> target;
  };
  std::map<std::uint64_t, Line> lines;
  std::map<std::uint64_t, unsigned> labels;
  for (std::uint64_t at = 0; at < code.size();) {
    ZydisDecodedInstruction instruction;
    std::array<ZydisDecodedOperand, ZYDIS_MAX_OPERAND_COUNT> operands;
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, &code[at], code.size() - at, &instruction, operands.data()))) {
      lines[at++] = {"(not an instruction)", {}};
      continue;
    }
    std::array<char, 256> buffer;
    ZydisFormatterFormatInstruction(&formatter, &instruction, operands.data(), instruction.operand_count_visible,
                                    buffer.data(), buffer.size(), at, nullptr);
    const std::string text = name_tlb(buffer.data());
    const std::string above = name_state(text, "[rbp+", "]", 1, x64::kStateBias);
    Line& line = lines[at] = {name_state(above, "[rbp-", "]", -1, x64::kStateBias), {}};
    if (operands[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && operands[0].imm.is_relative) {
      ZyanU64 target = 0;
      ZydisCalcAbsoluteAddress(&instruction, &operands[0], at, &target);
      line = {ZydisMnemonicGetString(instruction.mnemonic), target};
      labels[target] = 0;
    }
    at += instruction.length;
  }
  unsigned number = 0;
  for (auto& [at, label] : labels) label = ++number;
  std::string text;
  for (const auto& [at, line] : lines) {
    if (const auto label = labels.find(at); label != labels.end()) text += fmt::format("L{}:\n", label->second);
    text += "  " + line.text + (line.target ? fmt::format(" L{}", labels[*line.target]) : "") + '\n';
  }
  return text;
}

}  // namespace block_text

// The block at `offset` of a page's bytes, as the translator makes it on a host with such features.
inline BlockText text_of_block(std::span<const std::byte> page, unsigned offset, const x64::HostFeatures& features) {
  const riscv::IsaConfig isa = riscv::IsaConfig::rva22();
  ir::Block block;
  riscv::Lifter(isa, {.fused_multiply_add = features.fma}).lift(page, offset, block);
  BlockText text;
  text.instructions = block.origins.size();
  const riscv::Decoder decoder(isa);
  for (const ir::Origin& origin : block.origins) {
    text.guest += fmt::format("  {}\n", riscv::disassemble(decoder, origin.raw, origin.offset));
  }
  text.lifted = block_text::print_ir(block);
  ir::optimize(block);
  text.optimized = block_text::print_ir(block);
  const x64::Compiler compiler(TranslatorEngine::state_offsets(), features);
  text.host = block_text::print_host(compiler.compile({block, offset}).bytes);
  return text;
}

// The region of the loop at `offset`; all branches in it go both ways.
inline std::optional<Region> region_of_loop(std::span<const std::byte> page, unsigned offset,
                                            const x64::StateOffsets& offsets,
                                            const ir::PassSet& passes = ir::PassSet::all()) {
  const auto lifter = std::make_shared<riscv::Lifter>(riscv::IsaConfig::rva22());
  const auto lift = [&](auto bytes, std::uint64_t base, unsigned at, const auto& limits, ir::Block& block) {
    lifter->lift(bytes, at, block, limits, base);
  };
  const RegionProfile profile{[](unsigned) { return 0u; }, [](const ShortBranch&) { return true; }};
  return form_region(page, 0, offset, lift, offsets, profile, passes);
}

// What becomes of it in flat memory.
inline BlockText text_of_loop(std::span<const std::byte> page, unsigned offset, const x64::HostFeatures& features) {
  const x64::Compiler compiler(TranslatorEngine::state_offsets(x64::MemoryModel::kFlat), features);
  const auto region = region_of_loop(page, offset, compiler.offsets());
  if (!region) return {};
  BlockText text;
  text.instructions = region->instructions;
  for (const ir::Block& block : region->blocks) text.optimized += block_text::print_ir(block);
  text.host = block_text::print_host(compiler.compile_region(region->parts, region->pins).bytes);
  return text;
}

}  // namespace doppel::engine_test
