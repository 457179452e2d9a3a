#include "storage/page_cache_engine.h"

#include <sys/resource.h>

#include <cerrno>

namespace doppel {

void PageCacheEngine::start(FileOperation& operation) {
  if (operation.cached && operation.length <= kMostBytes && serve(operation)) return done_.push(operation);
  behind_->start(operation);
  started_behind_ = true;
}

// True when the operation has its result.
bool PageCacheEngine::serve(FileOperation& operation) {
  if (operation.kind == FileOperation::Kind::kWrite) return write(operation);
  if (operation.kind != FileOperation::Kind::kRead || !reads_without_waiting_) return false;
  FileOperation at_once = operation;
  at_once.flags |= RWF_NOWAIT;
  operation.result = host_.carry_out(at_once);
  if (operation.result == -EOPNOTSUPP) reads_without_waiting_ = false;
  return operation.result > 0;
}

bool PageCacheEngine::write(FileOperation& operation) {
  const Clock::time_point before = host_.now();
  if (before < write_again_) return false;
  // Its duration alone does not tell a wait from another program's turn on this processor.
  const long slept = host_.sleeps();
  operation.result = host_.carry_out(operation);
  if (host_.sleeps() == slept) return true;
  const Clock::time_point after = host_.now();
  write_again_ = after + kRestFactor * (after - before);
  return true;
}

long PageCacheEngine::sleeps_of_this_thread() {
  rusage usage{};
  ::getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_nvcsw;
}

void PageCacheEngine::commit() {
  if (std::exchange(started_behind_, false)) behind_->commit();
}

FileOperation* PageCacheEngine::finished() {
  if (FileOperation* operation = done_.pop()) return operation;
  return behind_->finished();
}

void PageCacheEngine::wait() {
  if (done_.empty()) behind_->wait();
}

}  // namespace doppel
