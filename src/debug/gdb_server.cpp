#include "debug/gdb_server.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "base/log.h"

namespace doppel::debug {
namespace {

// Errors are numbers without a meaning that the protocol defines; errno's are what people expect.
constexpr std::string_view kOk = "OK", kBadPacket = "E16", kNoSuchThread = "E03", kNoMemory = "E0e",
                           kNoRegister = "E01", kRefused = "E22", kUnknown = "";

// A peer that does not read its answers gets no more questions answered.
constexpr std::size_t kMostOutput = std::size_t{1} << 20;
// Half of a packet's characters, for memory goes as two digits a byte.
constexpr std::uint64_t kMostMemory = GdbDecoder::kMaxPayload / 2 - 8;

Result<UniqueFd> listen_at_port(unsigned port) {
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return fail_errno(errno, "--gdb {}", port);
  const int on = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  // Whoever debugs a guest commands all of it: nobody outside this host shall.
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  // Every socket address begins as sockaddr does.
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(fd.get(), 1) != 0) {
    return fail_errno(errno, "--gdb {}", port);
  }
  return fd;
}

Result<UniqueFd> listen_at_path(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return fail("--gdb {}: the path is longer than the {} bytes that a socket's may have", path,
                sizeof address.sun_path - 1);
  }
  path.copy(address.sun_path, path.size());
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return fail_errno(errno, "--gdb {}", path);
  // Every socket address begins as sockaddr does.
  const auto* generic = reinterpret_cast<const sockaddr*>(&address);
  // A socket that nobody listens at was left behind by a process that died.
  if (::connect(fd.get(), generic, sizeof address) == 0) return fail("--gdb {}: already in use", path);
  if (errno == ECONNREFUSED) ::unlink(path.c_str());
  if (::bind(fd.get(), generic, sizeof address) != 0 || ::listen(fd.get(), 1) != 0) {
    return fail_errno(errno, "--gdb {}", path);
  }
  return fd;
}

std::optional<PointKind> point_kind(char c) {
  if (c < '0' || c > '4') return std::nullopt;
  return static_cast<PointKind>(c - '0');
}

// A thread as packets name it: a number, 0 for any and -1 for all, which are the same to us.
std::optional<ThreadId> thread_of(std::string_view text) {
  if (text == "-1") return 0;
  GdbFields fields(text);
  const auto number = fields.number();
  if (!number || !fields.empty() || *number > ~ThreadId{0}) return std::nullopt;
  return static_cast<ThreadId>(*number);
}

// The part of `whole` that a qXfer read asks for.
std::string piece_of(std::string_view whole, std::uint64_t offset, std::uint64_t length) {
  if (offset >= whole.size()) return "l";
  const std::string_view piece = whole.substr(offset, std::min<std::uint64_t>(length, kMostMemory));
  return (offset + piece.size() < whole.size() ? "m" : "l") + std::string(piece);
}

}  // namespace

Result<GdbServer::Socket> GdbServer::open(const std::string& where) {
  unsigned port = 0;
  const auto [end, error] = std::from_chars(where.data(), where.data() + where.size(), port);
  const bool is_number = !where.empty() && where.find_first_not_of("0123456789") == std::string::npos;
  if (where.empty()) return fail("--gdb: a port or the path of a socket is missing");
  if (is_number && (error != std::errc() || port == 0 || port > 65535)) {
    return fail("--gdb: '{}' is no port from 1 to 65535", where);
  }
  auto socket = is_number ? listen_at_port(port) : listen_at_path(where);
  if (!socket) return std::unexpected(socket.error());
  log_info("gdb: waiting at {}", where);
  return Socket{std::move(*socket), is_number ? "" : where};
}

std::unique_ptr<GdbServer> GdbServer::listen(EventLoop& loop, Socket socket) {
  std::unique_ptr<GdbServer> server(new GdbServer(loop, std::move(socket)));
  server->listen_again();
  return server;
}

std::unique_ptr<GdbServer> GdbServer::serve(EventLoop& loop, UniqueFd client) {
  std::unique_ptr<GdbServer> server(new GdbServer(loop, Socket{}));
  server->begin_session(std::move(client));
  return server;
}

GdbServer::GdbServer(EventLoop& loop, Socket socket)
    : loop_(loop), socket_(std::move(socket.fd)), path_(std::move(socket.path)) {}

GdbServer::~GdbServer() {
  if (target_ != nullptr) target_->on_stop = nullptr;
  if (client_) {
    loop_.unwatch(client_.get());
  } else if (socket_) {
    loop_.unwatch(socket_.get());
  }
  if (!path_.empty()) ::unlink(path_.c_str());
}

// --- The target.

void GdbServer::attach(Target& target) {
  target_ = &target;
  target.set_attended(static_cast<bool>(client_));
  target.on_stop = [this](const StopEvent& event) { stopped(event); };
  const std::vector<ThreadId> threads = target.threads();
  last_stop_ = {StopEvent::Kind::kSignal, threads.empty() ? 0 : threads.front(), kSignalTrap, {}, 0};
  general_thread_ = resumed_thread_ = 0;
  if (!running_) return;
  for (const Point& point : points_) {
    if (!target.insert(last_stop_.thread, point)) log_warning("gdb: a point at {:#x} is lost", point.address);
  }
  std::vector<ResumeAction> actions;
  for (const ThreadId thread : threads) actions.push_back({.thread = thread});
  target.resume(actions);
}

void GdbServer::release_target() {
  if (target_ != nullptr) target_->on_stop = nullptr;
  target_ = nullptr;
}

void GdbServer::ended(unsigned code, bool killed) {
  release_target();
  if (!client_) return;
  char byte = static_cast<char>(code);
  if (running_) send((killed ? "X" : "W") + to_hex(std::string_view(&byte, 1)));
  end_session();
}

// --- The connection.

void GdbServer::listen_again() {
  loop_.watch(socket_.get(), EventLoop::kReadable, [this](std::uint32_t) { accept(); });
}

void GdbServer::accept() {
  UniqueFd client(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!client) return;
  loop_.unwatch(socket_.get());
  begin_session(std::move(client));
}

void GdbServer::begin_session(UniqueFd client) {
  client_ = std::move(client);
  ::fcntl(client_.get(), F_SETFL, ::fcntl(client_.get(), F_GETFL) | O_NONBLOCK);
  const int on = 1;
  ::setsockopt(client_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);  // fails where it means nothing
  decoder_ = {};
  output_.clear();
  last_packet_.clear();
  acknowledge_ = true;
  stop_acknowledging_ = hang_up_ = false;
  knows_software_breaks_ = knows_hardware_breaks_ = knows_none_left_ = false;
  general_thread_ = resumed_thread_ = 0;
  if (target_ != nullptr) {
    target_->set_attended(true);
    target_->halt();
    if (running_) {
      const std::vector<ThreadId> threads = target_->threads();
      last_stop_ = {StopEvent::Kind::kSignal, threads.empty() ? 0 : threads.front(), kSignalTrap, {}, 0};
    }
  }
  running_ = false;
  loop_.watch(client_.get(), EventLoop::kReadable, [this](std::uint32_t readiness) { on_readiness(readiness); });
}

void GdbServer::end_session() {
  flush();
  loop_.unwatch(client_.get());
  client_ = UniqueFd();
  if (socket_) listen_again();
}

void GdbServer::forget_points() {
  if (target_ != nullptr) {
    if (running_) target_->halt();
    for (const Point& point : points_) target_->remove(point);
  }
  points_.clear();
}

// Everything runs, as if nobody had ever looked.
void GdbServer::detach() {
  forget_points();
  running_ = true;
  if (target_ == nullptr) return;
  target_->set_attended(false);
  std::vector<ResumeAction> actions;
  for (const ThreadId thread : target_->threads()) actions.push_back({.thread = thread});
  target_->resume(actions);
}

void GdbServer::on_readiness(std::uint32_t readiness) {
  if ((readiness & EventLoop::kWritable) != 0) flush();
  if (client_ && (readiness & (EventLoop::kReadable | EventLoop::kHangup)) != 0) receive();
}

void GdbServer::receive() {
  std::array<char, 16384> buffer;
  const ssize_t count = ::recv(client_.get(), buffer.data(), buffer.size(), 0);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (count <= 0) {
    log_info("gdb: the connection is gone");
    detach();
    end_session();
    return;
  }
  decoder_.feed({buffer.data(), static_cast<std::size_t>(count)});
  while (client_) {
    const std::optional<GdbInput> input = decoder_.next();
    if (!input) break;
    handle(*input);
    if (client_ && hang_up_) end_session();
  }
  if (client_) flush();
}

void GdbServer::flush() {
  while (!output_.empty()) {
    const ssize_t count = ::send(client_.get(), output_.data(), output_.size(), MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno != EAGAIN) output_.clear();  // reading will tell that the peer is gone
    if (count <= 0) break;
    output_.erase(0, static_cast<std::size_t>(count));
  }
  std::uint32_t interest = 0;
  if (output_.size() < kMostOutput) interest |= EventLoop::kReadable;
  if (!output_.empty()) interest |= EventLoop::kWritable;
  loop_.change_interest(client_.get(), interest);
}

void GdbServer::send(std::string_view payload) {
  if (!client_) return;
  last_packet_ = gdb_packet(payload);
  output_ += last_packet_;
  flush();
}

void GdbServer::handle(const GdbInput& input) {
  using Kind = GdbInput::Kind;
  switch (input.kind) {
    case Kind::kAcknowledge: return;
    case Kind::kRepeat:
      if (acknowledge_ && output_.size() < kMostOutput) output_ += last_packet_;
      return;
    case Kind::kDamaged:
      if (acknowledge_) output_ += '-';
      return;
    case Kind::kInterrupt:
      if (running_ && target_ != nullptr) {
        target_->halt();
        const std::vector<ThreadId> threads = target_->threads();
        const ThreadId thread = exists(last_stop_.thread) ? last_stop_.thread : threads.empty() ? 0 : threads.front();
        stopped({StopEvent::Kind::kSignal, thread, kSignalInterrupt, {}, 0});
      }
      return;
    case Kind::kPacket: break;
  }
  if (acknowledge_) output_ += '+';
  // While the target runs, nothing is asked of it but its end.
  const bool ends = input.payload.starts_with('k') || input.payload.starts_with('D') ||
                    input.payload.starts_with("vKill");
  if (running_ && !ends) return;
  if (target_ == nullptr && !ends) return send(kRefused);
  const std::optional<std::string> reply = answer(input.payload);
  if (reply) send(*reply);
  if (stop_acknowledging_) acknowledge_ = false;
}

// --- Packets. Their letters and fields are in the manual's section "Packets" and those after it.

std::optional<std::string> GdbServer::answer(std::string_view packet) {
  if (packet.empty()) return std::string(kUnknown);
  const std::string_view rest = packet.substr(1);
  switch (packet.front()) {
    case '?': return stop_reply(last_stop_);
    case 'q':
    case 'Q': return answer_query(packet);
    case 'v': return answer_v(packet);
    case 'H': return select_thread(rest);
    case 'T': {
      const auto thread = thread_of(rest);
      return std::string(thread && exists(*thread) ? kOk : kNoSuchThread);
    }
    case 'g': return read_registers();
    case 'G': return write_registers(rest);
    case 'p': return read_register(rest);
    case 'P': return write_register(rest);
    case 'm': return read_memory(rest);
    case 'M': return write_memory(rest, false);
    case 'X': return write_memory(rest, true);
    case 'Z':
    case 'z': return change_point(packet);
    case 'c':
    case 'C':
    case 's':
    case 'S': return resume(packet);
    case 'D':
      detach();
      hang_up_ = true;
      return std::string(kOk);
    case 'k':
      if (target_ != nullptr) target_->kill();
      hang_up_ = true;
      return std::nullopt;
    default: return std::string(kUnknown);
  }
}

std::optional<std::string> GdbServer::answer_query(std::string_view packet) {
  GdbFields fields(packet);
  if (fields.skip("qSupported")) return supported(fields.rest());
  if (packet == "QStartNoAckMode") {
    stop_acknowledging_ = true;
    return std::string(kOk);
  }
  if (fields.skip("qXfer:")) return transfer(fields.rest());
  if (packet == "qC") return "QC" + to_hex(std::uint64_t{selected()});
  if (packet == "qAttached" || packet.starts_with("qAttached:")) return target_->attached() ? "1" : "0";
  if (packet == "qfThreadInfo") {
    std::string list;
    for (const ThreadId thread : target_->threads()) {
      list += (list.empty() ? "m" : ",") + to_hex(std::uint64_t{thread});
      if (list.size() > GdbDecoder::kMaxPayload - 16) break;
    }
    return list.empty() ? "l" : list;
  }
  if (packet == "qsThreadInfo") return "l";
  if (fields.skip("qThreadExtraInfo,")) {
    const auto thread = thread_of(fields.rest());
    if (!thread || !exists(*thread)) return std::string(kNoSuchThread);
    return to_hex(std::string_view(target_->thread_name(*thread)));
  }
  if (fields.skip("qRcmd,")) return monitor(fields.rest());
  if (packet == "qSymbol::") return std::string(kOk);
  return std::string(kUnknown);
}

std::string GdbServer::supported(std::string_view features) {
  if (features.starts_with(':')) features.remove_prefix(1);
  for (GdbFields list(features); !list.empty();) {
    const std::string_view feature = list.until(';');
    if (feature == "swbreak+") knows_software_breaks_ = true;
    if (feature == "hwbreak+") knows_hardware_breaks_ = true;
    if (feature == "no-resumed+") knows_none_left_ = true;
  }
  std::string ours = "PacketSize=" + to_hex(std::uint64_t{GdbDecoder::kMaxPayload}) +
                     ";QStartNoAckMode+;qXfer:features:read+;vContSupported+;swbreak+;hwbreak+;no-resumed+";
  if (!target_->program_path().empty()) ours += ";qXfer:exec-file:read+";
  if (!target_->auxiliary_vector().empty()) ours += ";qXfer:auxv:read+";
  return ours;
}

std::string GdbServer::transfer(std::string_view packet) {
  GdbFields fields(packet);
  const std::string_view object = fields.until(':');
  if (fields.until(':') != "read") return std::string(kUnknown);
  const std::string_view annex = fields.until(':');
  const auto offset = fields.number();
  if (!offset || !fields.skip(',')) return std::string(kBadPacket);
  const auto length = fields.number();
  if (!length || !fields.empty()) return std::string(kBadPacket);
  if (object == "features") {
    if (annex != "target.xml") return "E00";
    return piece_of(target_->description(), *offset, *length);
  }
  if (object == "exec-file" && !target_->program_path().empty()) {
    return piece_of(target_->program_path(), *offset, *length);
  }
  if (object == "auxv") return piece_of(target_->auxiliary_vector(), *offset, *length);
  return std::string(kUnknown);
}

std::string GdbServer::monitor(std::string_view digits) {
  const std::optional<std::string> command = from_hex(digits);
  if (!command) return std::string(kBadPacket);
  std::string text;
  if (*command == "help" || command->empty()) {
    text = "help   This text\n" + target_->monitor_help();
  } else if (std::optional<std::string> answered = target_->monitor(*command)) {
    text = std::move(*answered);
  } else {
    text = "Unknown command; try `monitor help`.\n";
  }
  return text.empty() ? std::string(kOk) : to_hex(std::string_view(text).substr(0, kMostMemory));
}

bool GdbServer::exists(ThreadId thread) const {
  return target_ != nullptr && std::ranges::count(target_->threads(), thread) != 0;
}

ThreadId GdbServer::selected() { return exists(general_thread_) ? general_thread_ : last_stop_.thread; }

std::string GdbServer::select_thread(std::string_view rest) {
  if (rest.empty()) return std::string(kBadPacket);
  const auto thread = thread_of(rest.substr(1));
  if (!thread || (*thread != 0 && !exists(*thread))) return std::string(kNoSuchThread);
  if (rest.front() == 'g') {
    general_thread_ = *thread;
  } else if (rest.front() == 'c') {
    resumed_thread_ = *thread;
  } else {
    return std::string(kUnknown);
  }
  return std::string(kOk);
}

// --- Registers and memory.

std::string GdbServer::read_registers() {
  std::string digits;
  for (unsigned number = 0; number < target_->general_register_count(); ++number) {
    const auto bytes = target_->read_register(selected(), number);
    if (!bytes) return std::string(kNoRegister);
    digits += to_hex(std::string_view(*bytes));
  }
  return digits;
}

std::string GdbServer::write_registers(std::string_view digits) {
  const std::optional<std::string> bytes = from_hex(digits);
  if (!bytes) return std::string(kBadPacket);
  std::string_view rest = *bytes;
  for (unsigned number = 0; number < target_->general_register_count() && !rest.empty(); ++number) {
    const auto old = target_->read_register(selected(), number);
    if (!old || old->size() > rest.size()) return std::string(kNoRegister);
    const std::string_view value = rest.substr(0, old->size());
    if (value != *old && !target_->write_register(selected(), number, value)) return std::string(kNoRegister);
    rest.remove_prefix(old->size());
  }
  return std::string(kOk);
}

std::string GdbServer::read_register(std::string_view rest) {
  GdbFields fields(rest);
  const auto number = fields.number();
  if (!number || !fields.empty() || *number > ~0u) return std::string(kBadPacket);
  const auto bytes = target_->read_register(selected(), static_cast<unsigned>(*number));
  return bytes ? to_hex(std::string_view(*bytes)) : std::string(kNoRegister);
}

std::string GdbServer::write_register(std::string_view rest) {
  GdbFields fields(rest);
  const auto number = fields.number();
  if (!number || *number > ~0u || !fields.skip('=')) return std::string(kBadPacket);
  const auto bytes = from_hex(fields.rest());
  if (!bytes) return std::string(kBadPacket);
  return std::string(target_->write_register(selected(), static_cast<unsigned>(*number), *bytes) ? kOk : kNoRegister);
}

std::string GdbServer::read_memory(std::string_view rest) {
  GdbFields fields(rest);
  const auto address = fields.number();
  if (!address || !fields.skip(',')) return std::string(kBadPacket);
  const auto size = fields.number();
  if (!size || !fields.empty()) return std::string(kBadPacket);
  if (*size == 0) return "";
  const std::string bytes =
      target_->read_memory(selected(), *address, static_cast<std::size_t>(std::min(*size, kMostMemory)));
  return bytes.empty() ? std::string(kNoMemory) : to_hex(std::string_view(bytes));
}

std::string GdbServer::write_memory(std::string_view rest, bool binary) {
  GdbFields fields(rest);
  const auto address = fields.number();
  if (!address || !fields.skip(',')) return std::string(kBadPacket);
  const auto size = fields.number();
  if (!size || !fields.skip(':')) return std::string(kBadPacket);
  const auto bytes = binary ? std::string(fields.rest()) : from_hex(fields.rest());
  if (!bytes || bytes->size() != *size) return std::string(kBadPacket);
  if (bytes->empty()) return std::string(kOk);  // X of nothing asks whether there is an X
  return std::string(target_->write_memory(selected(), *address, *bytes) ? kOk : kNoMemory);
}

std::string GdbServer::change_point(std::string_view packet) {
  const bool insert = packet.front() == 'Z';
  if (packet.size() < 2) return std::string(kBadPacket);
  const auto kind = point_kind(packet[1]);
  if (!kind) return std::string(kUnknown);
  GdbFields fields(packet.substr(2));
  if (!fields.skip(',')) return std::string(kBadPacket);
  const auto address = fields.number();
  if (!address || !fields.skip(',')) return std::string(kBadPacket);
  const auto size = fields.number();
  // Conditions and commands, which we offer not, would follow.
  if (!size || !fields.empty()) return std::string(kBadPacket);
  constexpr std::uint64_t kMostBytes = 4096;
  const bool watches = *kind >= PointKind::kWrite;
  if (watches && (*size == 0 || *size > kMostBytes)) return std::string(kRefused);
  const Point point{*kind, *address, watches ? *size : 0};
  const auto found = std::ranges::find(points_, point);
  constexpr std::size_t kMostPoints = 4096;
  if (insert) {
    if (found != points_.end()) return std::string(kOk);
    if (points_.size() >= kMostPoints || !target_->insert(selected(), point)) return std::string(kRefused);
    points_.push_back(point);
    return std::string(kOk);
  }
  if (found == points_.end()) return std::string(kOk);
  points_.erase(found);
  return std::string(target_->remove(point) ? kOk : kRefused);
}

// --- Running.

std::optional<std::string> GdbServer::answer_v(std::string_view packet) {
  GdbFields fields(packet);
  if (packet == "vCont?") return "vCont;c;C;s;S;t";
  if (fields.skip("vCont;")) return resume_threads(fields.rest());
  if (packet.starts_with("vKill")) {
    if (target_ != nullptr) target_->kill();
    hang_up_ = true;
    return std::string(kOk);
  }
  return std::string(kUnknown);
}

// c, C, s, S: [signal][;][address]. The thread is the one that Hc chose; the others run along unless one was.
std::optional<std::string> GdbServer::resume(std::string_view packet) {
  const bool step = packet.front() == 's' || packet.front() == 'S';
  GdbFields fields(packet.substr(1));
  unsigned signal = 0;
  if (packet.front() == 'C' || packet.front() == 'S') {
    const auto number = fields.number();
    if (!number) return std::string(kBadPacket);
    signal = static_cast<unsigned>(*number & 0xff);
    if (!fields.empty() && !fields.skip(';')) return std::string(kBadPacket);
  }
  if (!fields.empty()) return std::string(kUnknown);  // at another address: no gdb of today asks for it
  const ThreadId chosen = exists(resumed_thread_) ? resumed_thread_ : last_stop_.thread;
  std::vector<ResumeAction> actions{{chosen, step, signal}};
  if (resumed_thread_ == 0) {
    for (const ThreadId thread : target_->threads()) {
      if (thread != chosen) actions.push_back({.thread = thread});
    }
  }
  return go(std::move(actions));
}

// vCont: ACTION[:THREAD];... Of several the first that fits a thread counts; a thread that none fits stays.
std::optional<std::string> GdbServer::resume_threads(std::string_view text) {
  std::vector<ResumeAction> actions;
  std::vector<ThreadId> undecided = target_->threads();
  for (GdbFields list(text); !list.empty();) {
    GdbFields action(list.until(';'));
    const std::string_view what = action.until(':');
    if (what.empty()) return std::string(kBadPacket);
    const auto thread = action.empty() ? std::optional<ThreadId>(0) : thread_of(action.rest());
    if (!thread) return std::string(kBadPacket);
    unsigned signal = 0;
    if (what.front() == 'C' || what.front() == 'S') {
      GdbFields digits(what.substr(1));
      const auto number = digits.number();
      if (!number || !digits.empty()) return std::string(kBadPacket);
      signal = static_cast<unsigned>(*number & 0xff);
    } else if (what != "c" && what != "s" && what != "t") {
      return std::string(kBadPacket);
    }
    const bool step = what.front() == 's' || what.front() == 'S';
    std::erase_if(undecided, [&](ThreadId candidate) {
      if (*thread != 0 && candidate != *thread) return false;
      if (what.front() != 't') actions.push_back({candidate, step, signal});
      return true;
    });
  }
  return go(std::move(actions));
}

std::optional<std::string> GdbServer::go(std::vector<ResumeAction> actions) {
  if (actions.empty()) return std::string(kNoSuchThread);
  running_ = true;
  target_->resume(actions);
  return std::nullopt;
}

void GdbServer::stopped(const StopEvent& event) {
  last_stop_ = event;
  general_thread_ = event.thread;
  if (!running_) return;
  if (!client_) return;  // nobody is there to be told; only its end stops a target without points
  running_ = false;
  send(stop_reply(event));
  if (event.kind == StopEvent::Kind::kNoneLeft) last_stop_ = {StopEvent::Kind::kSignal, event.thread, 0, {}, 0};
  const bool over = event.kind == StopEvent::Kind::kExited || event.kind == StopEvent::Kind::kKilled;
  if (over) release_target();
}

std::string GdbServer::stop_reply(const StopEvent& event) const {
  using Kind = StopEvent::Kind;
  const char code = static_cast<char>(event.kind == Kind::kBreakpoint || event.kind == Kind::kWatch ? kSignalTrap
                                                                                                    : event.code);
  const std::string number = to_hex(std::string_view(&code, 1));
  if (event.kind == Kind::kExited) return "W" + number;
  if (event.kind == Kind::kKilled) return "X" + number;
  if (event.kind == Kind::kNoneLeft && knows_none_left_) return "N";
  std::string reply = "T" + number;
  if (event.kind == Kind::kBreakpoint) {
    if (event.point.kind == PointKind::kSoftware && knows_software_breaks_) reply += "swbreak:;";
    if (event.point.kind == PointKind::kHardware && knows_hardware_breaks_) reply += "hwbreak:;";
  } else if (event.kind == Kind::kWatch) {
    const std::string_view name = event.point.kind == PointKind::kWrite  ? "watch:"
                                  : event.point.kind == PointKind::kRead ? "rwatch:"
                                                                         : "awatch:";
    reply.append(name).append(to_hex(event.address)).append(";");
  }
  return reply + "thread:" + to_hex(std::uint64_t{event.thread}) + ";";
}

}  // namespace doppel::debug
