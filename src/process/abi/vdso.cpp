#include "process/abi/vdso.h"

#include <elf.h>
#include <sys/mman.h>
#include <time.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <string_view>
#include <vector>

#include "base/bits.h"
#include "isa/riscv/hart.h"
#include "memory/address.h"
#include "process/abi/hwprobe.h"

namespace doppel::process {
namespace {

// Each clock's number below this has an offset; zero says that it is not kept.
constexpr std::uint64_t kClocks = 8;
constexpr std::uint64_t kHoldsForTicks = riscv::kTimebaseHz / 50;

// The code, at its place in the image. Data lies a page below the image: the sequence at 0, the last valid tick at 8,
// offsets of clocks from 16, what riscv_hwprobe answers from 128.
constexpr std::uint64_t kCodeAt = 0x400;
// auipc t1 and addi t1, t1, at `at` in the code: where the data is.
constexpr std::uint32_t to_data(std::uint64_t at) { return 0u - static_cast<std::uint32_t>(kPageSize + kCodeAt + at); }
constexpr std::uint32_t auipc_t1(std::uint64_t at) { return 0x00000317 | ((to_data(at) + 0x800) & 0xfffff000); }
constexpr std::uint32_t addi_t1(std::uint64_t at) { return 0x00030313 | to_data(at) << 20; }
constexpr std::uint32_t kCode[]{
    // __vdso_rt_sigreturn:
    0x08b00893,  //   0: li a7,139
    0x00000073,  //   4: ecall
    // __vdso_clock_gettime:
    0x00800293,  //   8: li t0,8
    0x00557e63,  //   c: bgeu a0,t0,slow_clock
    0x088002ef,  //  10: jal t0,now
    0x00038a63,  //  14: beqz t2,slow_clock
    0x01c5b023,  //  18: sd t3,0(a1)
    0x01d5b423,  //  1c: sd t4,8(a1)
    0x00000513,  //  20: li a0,0
    0x00008067,  //  24: ret
    // slow_clock:
    0x07100893,  //  28: li a7,113
    0x00000073,  //  2c: ecall
    0x00008067,  //  30: ret
    // __vdso_gettimeofday:
    0x02050863,  //  34: beqz a0,slow_day
    0x02059663,  //  38: bnez a1,slow_day
    0x00050813,  //  3c: mv a6,a0
    0x054002ef,  //  40: jal t0,now0
    0x00080513,  //  44: mv a0,a6
    0x00038e63,  //  48: beqz t2,slow_day
    0x01c53023,  //  4c: sd t3,0(a0)
    0x3e800313,  //  50: li t1,1000
    0x026edeb3,  //  54: divu t4,t4,t1
    0x01d53423,  //  58: sd t4,8(a0)
    0x00000513,  //  5c: li a0,0
    0x00008067,  //  60: ret
    // slow_day:
    0x0a900893,  //  64: li a7,169
    0x00000073,  //  68: ecall
    0x00008067,  //  6c: ret
    // __vdso_clock_getres:
    0x07200893,  //  70: li a7,114
    0x00000073,  //  74: ecall
    0x00008067,  //  78: ret
    // __vdso_getcpu:
    0x0a800893,  //  7c: li a7,168
    0x00000073,  //  80: ecall
    0x00008067,  //  84: ret
    // __vdso_flush_icache:
    0x10300893,  //  88: li a7,259
    0x00000073,  //  8c: ecall
    0x00008067,  //  90: ret
    // now0:
    0x00000513,  //  94: li a0,0
    // now:
    auipc_t1(0x98),
    addi_t1(0x98),
    0x00351393,  //  a0: sll t2,a0,0x3
    0x007303b3,  //  a4: add t2,t1,t2
    // again:
    0x00032603,  //  a8: lw a2,0(t1)
    0x00167693,  //  ac: and a3,a2,1
    0x04069663,  //  b0: bnez a3,none
    0x0220000f,  //  b4: fence r,r
    0x0103b683,  //  b8: ld a3,16(t2)
    0x00833703,  //  bc: ld a4,8(t1)
    0xc0102ef3,  //  c0: rdtime t4
    0x0220000f,  //  c4: fence r,r
    0x00032783,  //  c8: lw a5,0(t1)
    0xfcf61ee3,  //  cc: bne a2,a5,again
    0x02068663,  //  d0: beqz a3,none
    0x02eef463,  //  d4: bgeu t4,a4,none
    0x06400613,  //  d8: li a2,100
    0x02ce8eb3,  //  dc: mul t4,t4,a2
    0x00de8eb3,  //  e0: add t4,t4,a3
    0x3b9ad637,  //  e4: lui a2,0x3b9ad
    0xa006061b,  //  e8: addw a2,a2,-1536
    0x02cede33,  //  ec: divu t3,t4,a2
    0x02cefeb3,  //  f0: remu t4,t4,a2
    0x00100393,  //  f4: li t2,1
    0x00028067,  //  f8: jr t0
    // none:
    0x00000393,  //  fc: li t2,0
    0x00028067,  // 100: jr t0
    // __vdso_riscv_hwprobe:
    0x00d662b3,  // 104: or t0,a2,a3
    0x00e2e2b3,  // 108: or t0,t0,a4
    0x04029463,  // 10c: bnez t0,slow_probe
    auipc_t1(0x110),
    addi_t1(0x110),
    0x00459393,  // 118: sll t2,a1,0x4
    0x00a383b3,  // 11c: add t2,t2,a0
    0x00050e13,  // 120: mv t3,a0
    0x00000e93 | kProbeDense << 20,  // 124: li t4,kProbeDense
    // next_probe:
    0x027e0263,  // 128: beq t3,t2,probed
    0x000e3f03,  // 12c: ld t5,0(t3)
    0x03df7263,  // 130: bgeu t5,t4,slow_probe
    0x003f1f13,  // 134: sll t5,t5,0x3
    0x006f0f33,  // 138: add t5,t5,t1
    0x080f3f03,  // 13c: ld t5,128(t5)
    0x01ee3423,  // 140: sd t5,8(t3)
    0x010e0e13,  // 144: add t3,t3,16
    0xfe1ff06f,  // 148: j next_probe
    // probed:
    0x00000513,  // 14c: li a0,0
    0x00008067,  // 150: ret
    // slow_probe, also after some pairs, which it answers alike:
    0x10200893,  // 154: li a7,258
    0x00000073,  // 158: ecall
    0x00008067,  // 15c: ret
};

struct Symbol {
  std::string_view name;
  std::uint64_t at, bytes;  // within the code
};
constexpr std::array kSymbols{
    Symbol{"__vdso_rt_sigreturn", 0x00, 0x08},   Symbol{"__vdso_clock_gettime", 0x08, 0x2c},
    Symbol{"__vdso_gettimeofday", 0x34, 0x3c},   Symbol{"__vdso_clock_getres", 0x70, 0x0c},
    Symbol{"__vdso_getcpu", 0x7c, 0x0c},         Symbol{"__vdso_flush_icache", 0x88, 0x0c},
    Symbol{"__vdso_riscv_hwprobe", 0x104, 0x5c},
};
constexpr std::string_view kName = "linux-vdso.so.1", kVersion = "LINUX_4.15";

// As the gABI's "Hash Table" has it.
constexpr std::uint32_t hash(std::string_view name) {
  std::uint32_t h = 0;
  for (const char c : name) {
    h = (h << 4) + static_cast<unsigned char>(c);
    const std::uint32_t high = h & 0xf0000000;
    h = (h ^ high >> 24) & ~high;
  }
  return h;
}

// Puts together an image whose addresses are offsets in it.
class Image {
 public:
  Image() : bytes_(kPageSize) {}

  template <class T>
  std::uint64_t put(const T* from, std::size_t count, std::size_t alignment = 8) {
    end_ = align_down(end_ + alignment - 1, alignment);
    const std::uint64_t at = end_;
    std::memcpy(&bytes_.at(at), from, count * sizeof(T));
    end_ += count * sizeof(T);
    return at;
  }
  template <class T>
  void put_at(std::uint64_t at, const T* from, std::size_t count) {
    std::memcpy(&bytes_.at(at), from, count * sizeof(T));
  }
  void skip(std::uint64_t to) { end_ = to; }
  std::uint64_t end() const { return end_; }
  const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
  std::uint64_t end_ = 0;
};

std::vector<std::byte> make_image() {
  Image image;
  image.skip(sizeof(Elf64_Ehdr) + 2 * sizeof(Elf64_Phdr));

  std::vector<char> texts{0};
  const auto text = [&](std::string_view name) {
    const auto at = static_cast<std::uint32_t>(texts.size());
    texts.insert(texts.end(), name.begin(), name.end());
    texts.push_back(0);
    return at;
  };
  constexpr Elf64_Half kOurVersion = 2;
  std::vector<Elf64_Sym> symbols(1);
  std::vector<Elf64_Half> versions(1);
  // One bucket: a chain of all.
  std::vector<std::uint32_t> table{1, static_cast<std::uint32_t>(kSymbols.size() + 1), 1, 0};
  for (const Symbol& symbol : kSymbols) {
    symbols.push_back({.st_name = text(symbol.name), .st_info = ELF64_ST_INFO(STB_GLOBAL, STT_FUNC), .st_other = STV_DEFAULT,
                       .st_shndx = 1, .st_value = kCodeAt + symbol.at, .st_size = symbol.bytes});
    versions.push_back(kOurVersion);
    table.push_back(symbols.size() <= kSymbols.size() ? static_cast<std::uint32_t>(symbols.size()) : 0);
  }
  struct {
    Elf64_Verdef base{VER_DEF_CURRENT, VER_FLG_BASE, 1, 1, hash(kName), sizeof(Elf64_Verdef),
                      sizeof(Elf64_Verdef) + sizeof(Elf64_Verdaux)};
    Elf64_Verdaux base_name{};
    Elf64_Verdef ours{VER_DEF_CURRENT, 0, kOurVersion, 1, hash(kVersion), sizeof(Elf64_Verdef), 0};
    Elf64_Verdaux our_name{};
  } definitions;
  const std::uint32_t name = text(kName);
  definitions.base_name.vda_name = name;
  definitions.our_name.vda_name = text(kVersion);

  const std::uint64_t hash_at = image.put(table.data(), table.size());
  const std::uint64_t symbols_at = image.put(symbols.data(), symbols.size());
  const std::uint64_t texts_at = image.put(texts.data(), texts.size());
  const std::uint64_t versions_at = image.put(versions.data(), versions.size());
  const std::uint64_t definitions_at = image.put(&definitions, 1);
  const std::array<Elf64_Dyn, 10> dynamic{{
      {DT_SONAME, {name}}, {DT_HASH, {hash_at}}, {DT_STRTAB, {texts_at}}, {DT_SYMTAB, {symbols_at}},
      {DT_STRSZ, {texts.size()}}, {DT_SYMENT, {sizeof(Elf64_Sym)}}, {DT_VERSYM, {versions_at}},
      {DT_VERDEF, {definitions_at}}, {DT_VERDEFNUM, {2}}, {DT_NULL, {0}},
  }};
  const std::uint64_t dynamic_at = image.put(dynamic.data(), dynamic.size());
  image.put_at(kCodeAt, kCode, std::size(kCode));

  // Sections are for debuggers only, which are at a loss where a symbol has none.
  constexpr std::string_view kSectionNames{"\0.text\0.dynsym\0.dynstr\0.dynamic", 31};
  constexpr Elf64_Word kTextName = 1, kSymbolsName = 7, kTextsName = 15, kDynamicName = 23,
                       kTexts = 3;
  image.skip(kCodeAt + sizeof kCode);
  const std::uint64_t section_names_at = image.put(kSectionNames.data(), kSectionNames.size() + 1);
  const std::array<Elf64_Shdr, 6> sections{{
      {},
      {.sh_name = kTextName, .sh_type = SHT_PROGBITS, .sh_flags = SHF_ALLOC | SHF_EXECINSTR, .sh_addr = kCodeAt,
       .sh_offset = kCodeAt, .sh_size = sizeof kCode, .sh_link = 0, .sh_info = 0, .sh_addralign = 4, .sh_entsize = 0},
      {.sh_name = kSymbolsName, .sh_type = SHT_DYNSYM, .sh_flags = SHF_ALLOC, .sh_addr = symbols_at,
       .sh_offset = symbols_at, .sh_size = symbols.size() * sizeof symbols[0], .sh_link = kTexts, .sh_info = 1,
       .sh_addralign = 8, .sh_entsize = sizeof symbols[0]},
      {.sh_name = kTextsName, .sh_type = SHT_STRTAB, .sh_flags = SHF_ALLOC, .sh_addr = texts_at,
       .sh_offset = texts_at, .sh_size = texts.size(), .sh_link = 0, .sh_info = 0, .sh_addralign = 1, .sh_entsize = 0},
      {.sh_name = kDynamicName, .sh_type = SHT_DYNAMIC, .sh_flags = SHF_ALLOC, .sh_addr = dynamic_at,
       .sh_offset = dynamic_at, .sh_size = sizeof dynamic, .sh_link = kTexts, .sh_info = 0, .sh_addralign = 8,
       .sh_entsize = sizeof dynamic[0]},
      {.sh_name = 0, .sh_type = SHT_STRTAB, .sh_flags = 0, .sh_addr = 0, .sh_offset = section_names_at,
       .sh_size = kSectionNames.size() + 1, .sh_link = 0, .sh_info = 0, .sh_addralign = 1, .sh_entsize = 0},
  }};
  const std::uint64_t sections_at = image.put(sections.data(), sections.size());

  const std::uint64_t bytes = image.end();
  const std::array<Elf64_Phdr, 2> headers{{
      {.p_type = PT_LOAD, .p_flags = PF_R | PF_X, .p_offset = 0, .p_vaddr = 0, .p_paddr = 0, .p_filesz = bytes,
       .p_memsz = bytes, .p_align = kPageSize},
      {.p_type = PT_DYNAMIC, .p_flags = PF_R, .p_offset = dynamic_at, .p_vaddr = dynamic_at, .p_paddr = dynamic_at,
       .p_filesz = sizeof dynamic, .p_memsz = sizeof dynamic, .p_align = 8},
  }};
  constexpr Elf64_Word kDoubleFloats = 0x0004, kCompressed = 0x0001;  // EF_RISCV_FLOAT_ABI_DOUBLE, EF_RISCV_RVC
  Elf64_Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_ident[EI_VERSION] = EV_CURRENT;
  header.e_type = ET_DYN;
  header.e_machine = EM_RISCV;
  header.e_version = EV_CURRENT;
  header.e_phoff = sizeof header;
  header.e_flags = kDoubleFloats | kCompressed;
  header.e_ehsize = sizeof header;
  header.e_phentsize = sizeof(Elf64_Phdr);
  header.e_phnum = headers.size();
  header.e_shoff = sections_at;
  header.e_shentsize = sizeof(Elf64_Shdr);
  header.e_shnum = sections.size();
  header.e_shstrndx = sections.size() - 1;
  image.put_at(0, &header, 1);
  image.put_at(sizeof header, headers.data(), headers.size());
  return image.bytes();
}

std::uint64_t nanoseconds(clockid_t id) {
  timespec now{};
  ::clock_gettime(id, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(now.tv_nsec);
}

}  // namespace

// What the code above reads. A sequence that is odd, or not the same afterwards, says that it is being written.
struct Vdso::Data {
  std::atomic<std::uint32_t> sequence;
  std::uint32_t padding;
  std::atomic<std::uint64_t> last_tick;
  std::array<std::atomic<std::uint64_t>, kClocks> offsets;  // from ticks, in nanoseconds
  std::array<std::uint64_t, 6> padding_to_probes;
  std::array<std::uint64_t, kProbeDense> probes;
};

Result<std::unique_ptr<Vdso>> Vdso::map(AddressSpace& space, const VirtualClock& clock) {
  static_assert(sizeof(Data) <= kPageSize && offsetof(Data, last_tick) == 8 && offsetof(Data, offsets) == 16 &&
                offsetof(Data, probes) == 128);
  const std::int64_t at = space.map(0, 2 * kPageSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at < 0) return fail_errno(static_cast<int>(-at), "cannot map the vDSO");
  const auto data_at = static_cast<std::uint64_t>(at), base = data_at + kPageSize;
  static const std::vector<std::byte> image = make_image();
  std::memcpy(space.flat().host(base), image.data(), image.size());
  space.protect(base, kPageSize, PROT_READ | PROT_EXEC);
  space.protect(data_at, kPageSize, PROT_READ);
  // One page twice: theirs to read and ours to write.
  void* ours = ::mmap(nullptr, kPageSize, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (ours == MAP_FAILED ||
      ::mremap(ours, 0, kPageSize, MREMAP_MAYMOVE | MREMAP_FIXED, space.flat().host(data_at)) == MAP_FAILED ||
      ::mprotect(space.flat().host(data_at), kPageSize, PROT_READ) != 0) {
    return fail_errno(errno, "cannot map the data of the vDSO");
  }
  std::unique_ptr<Vdso> vdso(new Vdso(clock, base, new (ours) Data{}));
  for (std::int64_t key = 0; key < kProbeDense; ++key) {
    vdso->data_->probes[static_cast<std::size_t>(key)] = *probe_value(key, space.flat().size_bytes);
  }
  vdso->refresh();
  return vdso;
}

Vdso::~Vdso() { ::munmap(data_, kPageSize); }

std::uint64_t Vdso::signal_return() const { return base_ + kCodeAt; }

void Vdso::refresh() {
  const std::uint64_t tick = clock_.now() / riscv::kNanosecondsPerTick;
  if (tick < data_->last_tick.load(std::memory_order_relaxed)) return;
  std::uint32_t sequence = data_->sequence.load(std::memory_order_relaxed);
  // Odd: someone else is at it. Should he never end, programs make system calls.
  if ((sequence & 1) != 0 || !data_->sequence.compare_exchange_strong(sequence, sequence + 1, std::memory_order_acq_rel)) return;
  // The virtual clock is the monotonic one, moved; others keep their distance but for steps. Two clocks cannot be read
  // at once, and a difference as small as what lies between the two reads is no step.
  constexpr std::uint64_t kNoStep = 2000;
  const auto monotonic = static_cast<std::uint64_t>(clock_.host_time(0).time_since_epoch() / std::chrono::nanoseconds(1));
  const auto keep = [&](std::size_t id, std::uint64_t offset) {
    const std::uint64_t before = data_->offsets[id].load(std::memory_order_relaxed);
    if (offset - before + kNoStep > 2 * kNoStep) data_->offsets[id].store(offset, std::memory_order_relaxed);
  };
  const auto distance = [&](clockid_t id) {
    const std::uint64_t other = nanoseconds(id);
    return other - nanoseconds(CLOCK_MONOTONIC);
  };
  keep(CLOCK_MONOTONIC, monotonic);
  keep(CLOCK_MONOTONIC_COARSE, monotonic);
  const std::uint64_t real = monotonic + distance(CLOCK_REALTIME);
  keep(CLOCK_REALTIME, real);
  keep(CLOCK_REALTIME_COARSE, real);
  keep(CLOCK_BOOTTIME, monotonic + distance(CLOCK_BOOTTIME));
  data_->last_tick.store(tick + kHoldsForTicks, std::memory_order_relaxed);
  data_->sequence.store(sequence + 2, std::memory_order_release);
}

}  // namespace doppel::process
