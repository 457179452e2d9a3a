#include "translator/code_archive.h"

#include <dirent.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

#define XXH_INLINE_ALL
#include <fmt/format.h>
#include <xxhash.h>

#include "base/bits.h"
#include "base/unique_fd.h"
#include "memory/address.h"

namespace doppel {
namespace {

constexpr std::uint64_t kFileMagic = 0x31'65'64'6f'63'70'6f'64;     // "dopcode1"
constexpr std::uint64_t kSegmentMagic = 0x31'74'6e'65'6d'67'65'73;  // "segment1"
constexpr std::size_t kMostSegments = 16;
// A write makes the file's index longer, so what is but a small share of it is not worth one. Of a small program each block
// is: its first translation takes a process longer than the write.
constexpr unsigned kAddedShare = 256;

struct FileHeader {
  std::uint64_t magic;
  std::uint64_t key[2];
  std::uint64_t seed;
};
struct SegmentHeader {
  std::uint64_t magic;
  std::uint64_t bytes;     // with this header and the index
  std::uint64_t entries;
  std::uint64_t checksum;  // of the index
};

std::uint64_t checksum(std::span<const std::byte> bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

// A view of `count` objects at the beginning of `bytes`, which then begins after them.
template <class T>
std::span<const T> take_objects(std::span<const std::byte>& bytes, std::size_t count) {
  static_assert(std::is_trivially_copyable_v<T>);
  const std::span<const T> objects(reinterpret_cast<const T*>(bytes.data()), count);
  bytes = bytes.subspan(count * sizeof(T));
  return objects;
}

bool is_ascending(auto objects, std::size_t code_bytes, std::size_t width) {
  std::size_t from = 0;
  for (const auto& object : objects) {
    if (object.at < from || object.at + width > code_bytes) return false;
    from = object.at + width;
  }
  return true;
}

}  // namespace

// Sections of a payload, in this order: links, faults, pins, source, code.
struct CodeArchive::Entry {
  std::uint64_t address;
  std::uint64_t checksum;      // of the payload
  std::uint32_t payload;       // its offset in the segment, a multiple of 8
  std::uint32_t code_bytes;
  std::int16_t source_from;    // relative to `address`
  std::uint16_t source_bytes;
  std::uint16_t links, faults;
  std::uint8_t integer_pins, floating_pins;
  std::uint8_t region, final;
  std::uint32_t passing;       // not to be written

  std::size_t payload_bytes() const {
    return links * sizeof(x64::Link) + faults * sizeof(x64::FaultPoint) +
           (integer_pins + floating_pins) * sizeof(std::uint32_t) + source_bytes + code_bytes;
  }
};
static_assert(sizeof(x64::Link) == 16 && sizeof(x64::FaultPoint) == 16);

// One segment that is to be written.
struct CodeArchive::Writing {
  struct Item {
    Entry entry;
    std::span<const std::byte> payload;
  };
  std::vector<std::byte> bytes;

  explicit Writing(std::vector<Item> items) {
    const auto address = [](const Item& item) { return item.entry.address; };
    std::ranges::stable_sort(items, {}, address);
    // Of several with one address the last one.
    const auto repeated = std::ranges::unique(items.rbegin(), items.rend(), {}, address);
    items.erase(items.begin(), repeated.begin().base());
    SegmentHeader header{kSegmentMagic, 0, items.size(), 0};
    std::size_t at = sizeof header + items.size() * sizeof(Entry);
    for (Item& item : items) {
      item.entry.payload = static_cast<std::uint32_t>(at);
      at = (at + item.payload.size() + 7) & ~std::size_t{7};
    }
    header.bytes = at;
    bytes.resize(at);
    std::size_t index = sizeof header;
    for (const Item& item : items) {
      std::memcpy(&bytes[index], &item.entry, sizeof item.entry);
      std::memcpy(&bytes[item.entry.payload], item.payload.data(), item.payload.size());
      index += sizeof item.entry;
    }
    header.checksum = doppel::checksum(std::span(bytes).subspan(sizeof header, items.size() * sizeof(Entry)));
    std::memcpy(bytes.data(), &header, sizeof header);
  }
};

namespace {

// The build ID of the running program (elf(5), NT_GNU_BUILD_ID).
std::span<const std::byte> build_id() {
  std::span<const std::byte> found;
  const auto look = [](dl_phdr_info* info, std::size_t, void* into) {
    for (int i = 0; i < info->dlpi_phnum; ++i) {
      const ElfW(Phdr)& header = info->dlpi_phdr[i];
      if (header.p_type != PT_NOTE) continue;
      const auto* at = reinterpret_cast<const std::byte*>(info->dlpi_addr + header.p_vaddr);
      const std::byte* end = at + header.p_memsz;
      while (at + sizeof(ElfW(Nhdr)) <= end) {
        ElfW(Nhdr) note;
        std::memcpy(&note, at, sizeof note);
        const std::byte* name = at + sizeof note;
        const std::byte* content = name + (note.n_namesz + 3) / 4 * 4;
        if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 && std::memcmp(name, "GNU", 4) == 0) {
          *static_cast<std::span<const std::byte>*>(into) = {content, note.n_descsz};
          return 1;
        }
        at = content + (note.n_descsz + 3) / 4 * 4;
      }
    }
    return 1;  // the program itself comes first
  };
  ::dl_iterate_phdr(look, &found);
  return found;
}

}  // namespace

std::optional<CodeArchive::Key> CodeArchive::key_of(std::span<const std::span<const std::byte>> parts) {
  const std::span<const std::byte> own = build_id();
  if (own.empty()) return std::nullopt;
  XXH3_state_t state;
  XXH3_128bits_reset(&state);
  const auto update = [&state](std::span<const std::byte> part) {
    const std::uint64_t bytes = part.size();
    XXH3_128bits_update(&state, &bytes, sizeof bytes);
    XXH3_128bits_update(&state, part.data(), part.size());
  };
  update(own);
  for (const auto part : parts) update(part);
  const XXH128_hash_t digest = XXH3_128bits_digest(&state);
  return Key{digest.high64, digest.low64};
}

CodeArchive::CodeArchive(int folder, const Key& key)
    : folder_(folder), key_(key), name_(fmt::format("{:016x}{:016x}", key[0], key[1])) {
  if (::getrandom(&seed_, sizeof seed_, 0) != sizeof seed_) seed_ = 0;
  map_file();
  read_segments();
}

CodeArchive::~CodeArchive() {
  if (!file_.empty()) ::munmap(const_cast<std::byte*>(file_.data()), file_.size());
}

void CodeArchive::map_file() {
  const UniqueFd fd(::openat(folder_, name_.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat status {};
  if (!fd || ::fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode)) return;
  if (status.st_uid != ::geteuid() || (status.st_mode & (S_IWGRP | S_IWOTH)) != 0) return;
  const auto bytes = static_cast<std::size_t>(status.st_size);
  // Nobody makes it longer than that.
  if (bytes < sizeof(FileHeader) || bytes > 2 * kMostFileBytes) return;
  void* at = ::mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (at != MAP_FAILED) file_ = {static_cast<const std::byte*>(at), bytes};
}

void CodeArchive::read_segments() {
  std::span<const std::byte> rest = file_;
  if (rest.empty()) return;
  const FileHeader& header = take_objects<FileHeader>(rest, 1).front();
  if (header.magic != kFileMagic || !std::ranges::equal(header.key, key_)) return;
  seed_ = header.seed;
  while (rest.size() >= sizeof(SegmentHeader)) {
    std::span<const std::byte> inside = rest;
    const SegmentHeader& segment = take_objects<SegmentHeader>(inside, 1).front();
    const bool fits = segment.magic == kSegmentMagic && segment.bytes <= rest.size() && segment.bytes % 8 == 0 &&
                      segment.entries <= segment.bytes / sizeof(Entry) &&
                      sizeof segment + segment.entries * sizeof(Entry) <= segment.bytes;
    if (!fits) return;
    const auto entries = take_objects<Entry>(inside, segment.entries);
    if (checksum(std::as_bytes(entries)) != segment.checksum) return;
    segments_.push_back({rest.first(segment.bytes), entries, std::vector<bool>(entries.size())});
    kept_ += entries.size();
    rest = rest.subspan(segment.bytes);
  }
  whole_ = rest.empty();
}

std::span<const std::byte> CodeArchive::payload(const Segment& segment, const Entry& entry) const {
  const std::size_t bytes = entry.payload_bytes();
  if (entry.payload % 8 != 0 || entry.payload > segment.bytes.size()) return {};
  if (bytes > segment.bytes.size() - entry.payload || entry.code_bytes == 0 || entry.source_bytes == 0) return {};
  const auto found = segment.bytes.subspan(entry.payload, bytes);
  return checksum(found) == entry.checksum ? found : std::span<const std::byte>{};
}

bool CodeArchive::take_code(const Entry& entry, std::span<const std::byte> payload,
                            const std::function<bool(const ArchivedCode&)>& take) {
  std::span<const std::byte> rest = payload;
  ArchivedCode code{.address = entry.address,
                    .source_address = entry.address + static_cast<std::uint64_t>(std::int64_t{entry.source_from}),
                    .source = {}, .code = {}, .links = {}, .faults = {}, .pins = {}, .final = entry.final != 0};
  code.links = take_objects<x64::Link>(rest, entry.links);
  code.faults = take_objects<x64::FaultPoint>(rest, entry.faults);
  const auto integer = take_objects<std::uint32_t>(rest, entry.integer_pins);
  const auto floating = take_objects<std::uint32_t>(rest, entry.floating_pins);
  if (entry.region != 0) code.pins = {{integer.begin(), integer.end()}, {floating.begin(), floating.end()}};
  code.source = rest.first(entry.source_bytes);
  code.code = rest.subspan(entry.source_bytes);
  const auto is_sound = [&code](const x64::Link& link) { return link.unlinked < code.code.size(); };
  return is_ascending(code.links, code.code.size(), sizeof(std::uint32_t)) &&
         std::ranges::all_of(code.links, is_sound) && is_ascending(code.faults, code.code.size(), 1) && take(code);
}

std::uint64_t CodeArchive::page_of(std::span<const std::byte> content, std::uint64_t salt) {
  return align_down(XXH3_64bits_withSeed(content.data(), content.size(), salt), kPageSize);
}

void CodeArchive::for_each_in(std::uint64_t page, const std::function<bool(const ArchivedCode&)>& take) {
  const std::lock_guard lock(mutex_);
  for (auto segment = segments_.rbegin(); segment != segments_.rend(); ++segment) {
    auto entry = std::ranges::lower_bound(segment->entries, page, {}, &Entry::address);
    for (; entry != segment->entries.end() && entry->address - page < kPageSize; ++entry) {
      const std::span<const std::byte> found = payload(*segment, *entry);
      if (found.empty()) continue;
      if (take_code(*entry, found, take)) segment->used[static_cast<std::size_t>(entry - segment->entries.begin())] = true;
    }
  }
}

void CodeArchive::add(const ArchivedCode& code) {
  // A program that never ends has its share of memory, too.
  const std::lock_guard lock(mutex_);
  if (payloads_.size() > (code.recurs ? kMostAddedBytes : kMostAddedBytes / 2)) return;
  constexpr std::size_t kMost = 0xffff;
  if (code.links.size() > kMost || code.faults.size() > kMost) return;
  payloads_.resize((payloads_.size() + 7) & ~std::size_t{7});
  const std::size_t at = payloads_.size();
  const auto append = [this](const auto& objects) {
    const auto bytes = std::as_bytes(std::span(objects));
    payloads_.insert(payloads_.end(), bytes.begin(), bytes.end());
  };
  append(code.links);
  append(code.faults);
  if (code.pins) {
    append(code.pins->integer);
    append(code.pins->floating);
  }
  append(code.source);
  append(code.code);
  added_.push_back({.address = code.address,
                    .checksum = checksum(std::span(payloads_).subspan(at)),
                    .payload = static_cast<std::uint32_t>(at),
                    .code_bytes = static_cast<std::uint32_t>(code.code.size()),
                    .source_from = static_cast<std::int16_t>(code.source_address - code.address),
                    .source_bytes = static_cast<std::uint16_t>(code.source.size()),
                    .links = static_cast<std::uint16_t>(code.links.size()),
                    .faults = static_cast<std::uint16_t>(code.faults.size()),
                    .integer_pins = static_cast<std::uint8_t>(code.pins ? code.pins->integer.size() : 0),
                    .floating_pins = static_cast<std::uint8_t>(code.pins ? code.pins->floating.size() : 0),
                    .region = code.pins.has_value(),
                    .final = code.final,
                    .passing = !code.recurs});
  if (code.recurs) ++recurring_;
  latest_[code.address] = added_.size() - 1;
}

void CodeArchive::find_added(std::uint64_t address, const std::function<bool(const ArchivedCode&)>& take) {
  const std::lock_guard lock(mutex_);
  const auto found = latest_.find(address);
  if (found == latest_.end()) return;
  const Entry& entry = added_[found->second];
  take_code(entry, std::span(payloads_).subspan(entry.payload, entry.payload_bytes()), take);
}

void CodeArchive::forget_added() {
  const std::lock_guard lock(mutex_);
  drop_added();
}

void CodeArchive::drop_added() {
  added_.clear();
  payloads_.clear();
  latest_.clear();
  recurring_ = 0;
}

void CodeArchive::write() {
  const std::lock_guard lock(mutex_);
  if (recurring_ == 0 || recurring_ < kept_ / kAddedShare) return;
  std::vector<Writing::Item> items;
  const auto take_added = [&] {
    for (const Entry& entry : added_) {
      if (entry.passing != 0) continue;
      items.push_back({entry, std::span(payloads_).subspan(entry.payload, entry.payload_bytes())});
    }
  };
  const bool room = file_.size() + payloads_.size() <= kMostFileBytes;
  bool done = false;
  if (!segments_.empty() && whole_ && room && segments_.size() < kMostSegments) {
    take_added();
    done = append(Writing(std::move(items)));
  } else {
    // One segment of all; where that would be too much, of what was of use here.
    for (const Segment& segment : segments_) {
      for (std::size_t i = 0; i < segment.entries.size(); ++i) {
        if (!room && !segment.used[i]) continue;
        const auto kept = payload(segment, segment.entries[i]);
        if (!kept.empty()) items.push_back({segment.entries[i], kept});
      }
    }
    take_added();
    done = replace(Writing(std::move(items)));
  }
  if (done) drop_added();
}

bool CodeArchive::append(const Writing& writing) const {
  const UniqueFd fd(::openat(folder_, name_.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC | O_NOFOLLOW));
  // What another process replaced it by meanwhile has another seed, or everything that we know.
  return fd && ::write(fd.get(), writing.bytes.data(), writing.bytes.size()) ==
                   static_cast<ssize_t>(writing.bytes.size());
}

bool CodeArchive::replace(const Writing& writing) const {
  prune_folder();
  const std::string temporary = fmt::format("{}.{}", name_, ::getpid());
  // Left by one of our number that did not come to its end.
  ::unlinkat(folder_, temporary.c_str(), 0);
  const UniqueFd fd(::openat(folder_, temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) return false;
  FileHeader header{kFileMagic, {key_[0], key_[1]}, seed_};
  const std::array<iovec, 2> parts{iovec{&header, sizeof header},
                                   iovec{const_cast<std::byte*>(writing.bytes.data()), writing.bytes.size()}};
  const bool written = ::writev(fd.get(), parts.data(), parts.size()) ==
                       static_cast<ssize_t>(sizeof header + writing.bytes.size());
  if (written && ::renameat(folder_, temporary.c_str(), folder_, name_.c_str()) == 0) return true;
  ::unlinkat(folder_, temporary.c_str(), 0);
  return false;
}

void CodeArchive::prune_folder() const {
  const int again = ::openat(folder_, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* listing = again < 0 ? nullptr : ::fdopendir(again);
  if (listing == nullptr) {
    if (again >= 0) ::close(again);
    return;
  }
  struct File {
    std::string name;
    std::size_t bytes;
    timespec used;
  };
  std::vector<File> files;
  std::size_t total = 0;
  while (const dirent* found = ::readdir(listing)) {
    struct stat status {};
    if (::fstatat(folder_, found->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(status.st_mode)) continue;
    files.push_back({found->d_name, static_cast<std::size_t>(status.st_size), status.st_atim});
    total += files.back().bytes;
  }
  ::closedir(listing);
  if (total <= kMostFolderBytes) return;
  // Those that were read longest ago, so many that it does not come to this each time.
  std::ranges::sort(files, {}, [](const File& file) { return std::pair(file.used.tv_sec, file.used.tv_nsec); });
  for (const File& file : files) {
    if (total <= kMostFolderBytes / 4 * 3) break;
    if (::unlinkat(folder_, file.name.c_str(), 0) == 0) total -= file.bytes;
  }
}

}  // namespace doppel
