#include "translator/hot_code.h"

#include <cassert>

#include "base/log.h"
#include "ir/text.h"
#include "ir/verify.h"

namespace doppel {

void check([[maybe_unused]] const ir::Block& block) {
#ifdef DOPPEL_VERIFY_IR
  const Result<void> verified = ir::verify(block);
  if (!verified) log_error("{}\n{}", verified.error().message, ir::print(block));
  assert(verified);
#endif
}

std::optional<HotCode> compile_hot(const HotPipeline& how, const HotSource& source) {
  HotCode code;
  const x64::Window* window = source.window ? &*source.window : nullptr;
  const auto heat = [&](unsigned offset) { return unsigned{source.heat[offset / 2]}; };
  const auto goes_both_ways = [&](const ShortBranch& branch) {
    code.branches.push_back(branch);
    return source.both_ways.test(branch.head / 2);
  };
  std::optional<Region> region = form_region(source.page, source.base, source.offset, how.lift, how.compiler.offsets(),
                                             {heat, goes_both_ways}, how.passes);
  if (region) {
    for (const ir::Block& block : region->blocks) check(block);
    for (const x64::PlacedBlock& part : region->parts) {
      const std::size_t begin = part.address % kPageSize;
      code.parts.push_back({begin, begin + part.block.guest_bytes});
    }
    code.emitted = how.compiler.compile_region(region->parts, region->pins, source.unfit, window);
    code.pins = std::move(region->pins);
    code.optimized = std::move(region->blocks.front());
    return code;
  }
  if (source.is_region) return std::nullopt;
  how.lift(source.page, source.base, source.offset, {}, code.lifted);
  check(code.lifted);
  code.optimized = code.lifted;
  ir::optimize(code.optimized, how.passes);
  check(code.optimized);
  code.parts.push_back({source.offset, source.offset + code.optimized.guest_bytes});
  code.branches.clear();
  const bool flat = how.compiler.offsets().memory != x64::MemoryModel::kPaged;
  code.emitted = how.compiler.compile({code.optimized, flat ? source.base + source.offset : source.offset}, window);
  return code;
}

}  // namespace doppel
