// Translated code that outlives the process that made it: one file in a folder for each program, to which every process
// that runs the program adds what it had to translate; and one for all machines.
//
// In flat memory an address is the guest's. In paged memory code says nothing of where it lies: there the address is that
// of a page that has the content of the guest's, among all that there could be (page_of()), and harts of one machine find
// in the archive what others have translated. So they do in a machine's shadowed programs, with pages for all contents at
// all addresses: many programs lie at the same ones.
//
// A file is a header and segments, each an index by guest address and what it points to. It is only ever appended to, by
// one write() a process, or replaced as a whole, so what is mapped stays as it is. Code is taken by whoever runs the
// program again, if the guest's memory still holds the bytes that the code was made of; those are in the file.
//
// The file is trusted as far as its owner is: it has to belong to the user and to be writable by nobody else. Checksums
// find damage. What is wrong with a file or folder is never an error: its code is then not there.
//
// Any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "host/x64/compile.h"

namespace doppel {

// A block or region of translated code as an archive keeps it: with its links leading nowhere yet.
struct ArchivedCode {
  std::uint64_t address;                // of the guest, where it is entered
  std::uint64_t source_address;         // of the first guest byte that it was made of, in the same page
  std::span<const std::byte> source;    // those bytes
  std::span<const std::byte> code;
  std::span<const x64::Link> links;
  std::span<const x64::FaultPoint> faults;
  std::optional<x64::Pins> pins;        // of a region: its own
  bool final;                           // there is nothing better to be made of it
  bool recurs = true;                   // will be there in the next run, too; else it is of use in this one only
};

class CodeArchive {
 public:
  using Key = std::array<std::uint64_t, 2>;
  // `parts` is what the code depends on besides the guest's memory and this very Doppel. Nothing if the linker gave the
  // running program no build ID.
  static std::optional<Key> key_of(std::span<const std::span<const std::byte>> parts);

  // `folder` is an open directory, which stays the caller's and open.
  CodeArchive(int folder, const Key& key);
  ~CodeArchive();
  CodeArchive(const CodeArchive&) = delete;
  CodeArchive& operator=(const CodeArchive&) = delete;

  // A random number that stays the same as long as the file does: code is of use only where it was before.
  std::uint64_t seed() const { return seed_; }
  // Whether nothing had been kept when this was made.
  bool empty() const { return segments_.empty(); }
  // The address of the page with this content. `salt` tells code from other code of the same content: its kind, or where
  // it lies, if it knows that.
  static std::uint64_t page_of(std::span<const std::byte> content, std::uint64_t salt = 0);

  // Calls `take` with all code that is entered in the page at `page`, the latest first where there are several for one
  // address. What it points to holds while the archive lives, pins while it is called. `take` says whether it has use
  // for the code, and calls nothing of the archive.
  void for_each_in(std::uint64_t page, const std::function<bool(const ArchivedCode&)>& take);

  // Copies it, for write(). Later code for the same address replaces earlier one.
  void add(const ArchivedCode& code);
  // Calls `take` with what was added for the address, if anything was.
  void find_added(std::uint64_t address, const std::function<bool(const ArchivedCode&)>& take);
  // Of a fork()'s child: what was added is its parent's to write.
  void forget_added();
  // Adds to the file what was added here, if that is worth a write. Once.
  void write();

  static constexpr std::size_t kMostAddedBytes = std::size_t{64} << 20;  // of one process
  static constexpr std::size_t kMostFileBytes = std::size_t{256} << 20;
  static constexpr std::size_t kMostFolderBytes = std::size_t{1} << 30;

 private:
  struct Entry;
  struct Segment {
    std::span<const std::byte> bytes;
    std::span<const Entry> entries;
    std::vector<bool> used;
  };
  struct Writing;

  void drop_added();  // under mutex_
  void map_file();
  void read_segments();
  std::span<const std::byte> payload(const Segment& segment, const Entry& entry) const;
  static bool take_code(const Entry& entry, std::span<const std::byte> payload,
                        const std::function<bool(const ArchivedCode&)>& take);
  bool append(const Writing& writing) const;
  bool replace(const Writing& writing) const;
  void prune_folder() const;

  int folder_;
  Key key_;
  std::string name_;
  std::uint64_t seed_;
  std::span<const std::byte> file_{};
  std::vector<Segment> segments_;   // oldest first
  bool whole_ = false;              // the file has nothing but what segments_ has
  std::size_t kept_ = 0;            // entries in segments_

  std::mutex mutex_;  // of all that follows, and of Segment::used
  std::vector<Entry> added_;  // offsets in payloads_
  std::size_t recurring_ = 0;  // of them
  std::vector<std::byte> payloads_;
  std::unordered_map<std::uint64_t, std::size_t> latest_;  // of added_, by address
};

}  // namespace doppel
