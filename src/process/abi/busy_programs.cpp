#include "process/abi/busy_programs.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

#include <cerrno>
#include <limits>

#include "base/own_descriptor.h"

namespace doppel::process {
namespace {

// Where the mark is: the last byte that a lock may cover.
struct flock mark(short type) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = std::numeric_limits<off_t>::max();
  lock.l_len = 1;
  return lock;
}

}  // namespace

void mark_running(UniqueFd file) {
  // Of the open file, not of the process: a child after a fork has it, too.
  struct flock lock = mark(F_RDLCK);
  if (::fcntl(file.get(), F_OFD_SETLK, &lock) == 0) keep_aside(file.release(), Heirs::kChildren);
}

bool is_running(int fd) {
  struct stat status {};
  if (::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) || (status.st_mode & 0111) == 0) return false;
  struct flock lock = mark(F_WRLCK);
  return ::fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

bool is_being_written(int fd) {
  // Should somebody begin to write between the calls, he waits for the second one, and a signal that nobody minds says so.
  ::fcntl(fd, F_SETSIG, SIGURG);
  if (::fcntl(fd, F_SETLEASE, F_RDLCK) != 0) return errno == EAGAIN;
  ::fcntl(fd, F_SETLEASE, F_UNLCK);
  return false;
}

}  // namespace doppel::process
