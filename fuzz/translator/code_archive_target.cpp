// Archives of translated code with arbitrary indexes: checksums are made to fit, so that what lies behind them is reached.
#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "translator/code_archive.h"

namespace {

using doppel::CodeArchive;

constexpr CodeArchive::Key kKey{7, 9};
constexpr std::size_t kEntryBytes = 40;

// One folder for all inputs, with one file.
struct Folder {
  Folder() : path((std::filesystem::temp_directory_path() / "fuzz-archive.XXXXXX").string()) {
    if (::mkdtemp(path.data()) == nullptr) std::abort();
    fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  }
  ~Folder() { std::filesystem::remove_all(path); }
  std::string path;
  int fd = -1;
};

void put(std::vector<std::uint8_t>& file, std::uint64_t word) {
  for (unsigned i = 0; i < 8; ++i) file.push_back(static_cast<std::uint8_t>(word >> (8 * i)));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Folder folder;
  if (size == 0 || size > 1 << 16) return 0;
  const std::size_t entries = data[0] % 16;
  std::vector<std::uint8_t> inside(data + 1, data + size);
  inside.resize(std::max((inside.size() + 7) / 8 * 8, entries * kEntryBytes));
  const std::size_t segment_bytes = 32 + inside.size();
  // As the entries say where their payloads lie, those get the right checksums, as far as they lie anywhere.
  for (std::size_t i = 0; i < entries; ++i) {
    std::uint8_t* entry = &inside[i * kEntryBytes];
    std::uint32_t payload, code;
    std::uint16_t source, links, faults;
    std::memcpy(&payload, entry + 16, 4);
    std::memcpy(&code, entry + 20, 4);
    std::memcpy(&source, entry + 26, 2);
    std::memcpy(&links, entry + 28, 2);
    std::memcpy(&faults, entry + 30, 2);
    payload %= static_cast<std::uint32_t>(segment_bytes + 8);
    code %= static_cast<std::uint32_t>(segment_bytes);
    std::memcpy(entry + 16, &payload, 4);
    std::memcpy(entry + 20, &code, 4);
    const std::uint64_t bytes = std::uint64_t{16} * links + 16 * faults + 4 * (entry[32] + entry[33]) + source + code;
    if (payload >= 32 && payload + bytes <= segment_bytes) {
      const std::uint64_t sum = XXH3_64bits(&inside[payload - 32], bytes);
      std::memcpy(entry + 8, &sum, 8);
    }
  }
  std::vector<std::uint8_t> file;
  for (const std::uint64_t word : {std::uint64_t{0x3165646f63706f64}, kKey[0], kKey[1], std::uint64_t{1}}) put(file, word);
  put(file, 0x31746e656d676573);
  put(file, segment_bytes);
  put(file, entries);
  put(file, XXH3_64bits(inside.data(), entries * kEntryBytes));
  file.insert(file.end(), inside.begin(), inside.end());

  const char* name = "00000000000000070000000000000009";
  const int fd = ::openat(folder.fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0 || ::write(fd, file.data(), file.size()) < 0) std::abort();
  ::close(fd);
  CodeArchive archive(folder.fd, kKey);
  std::size_t sum = 0;
  std::vector<doppel::ArchivedCode> found;
  for (std::size_t i = 0; i < entries; ++i) {
    std::uint64_t address;
    std::memcpy(&address, &inside[i * kEntryBytes], 8);
    archive.for_each_in(address & ~std::uint64_t{4095}, [&](const doppel::ArchivedCode& code) {
      for (const std::byte byte : code.code) sum += static_cast<std::size_t>(byte);
      for (const std::byte byte : code.source) sum += static_cast<std::size_t>(byte);
      for (const auto& link : code.links) sum += link.at < code.code.size() ? 1 : throw 0;
      for (const auto& fault : code.faults) sum += fault.at < code.code.size() ? 1 : throw 0;
      found.push_back(code);
      return sum % 2 == 0;
    });
  }
  for (const doppel::ArchivedCode& code : found) archive.add(code);
  for (const doppel::ArchivedCode& code : found) {
    archive.find_added(code.address, [](const doppel::ArchivedCode&) { return true; });
  }
  archive.write();
  return 0;
}
