// The life of a link: waiting → connecting → introducing → up → (lost) waiting …
//
// Why requests that were written are failed rather than sent again: the server may have executed
// them. Those still unwritten are certain not to have been, and go out on the next link. out_
// always begins at a request boundary, because a partial write moves the rest into the stream; so
// an entry is unwritten exactly if its bytes are still in out_.
#include "upstream/connection.h"

#include <algorithm>
#include <charconv>
#include <random>

#include "nearcached/base/check.h"
#include "nearcached/base/clock.h"
#include "nearcached/resp/writer.h"

namespace nearcached {
namespace {

enum Step : uint8_t {
  kAuth,
  kHello,
  kSelect,
  kReadonly,
  kTracking,
  kProbe,  ///< the steps of the self-test; one that is refused makes it say nothing
  kProbeEnd,
  kName,
  kId
};

bool starts_with(Bytes text, Bytes prefix) { return text.substr(0, prefix.size()) == prefix; }

uint64_t jittered(uint64_t ms) {
  thread_local std::minstd_rand random{std::random_device{}()};
  return ms / 2 + std::uniform_int_distribution<uint64_t>(0, ms / 2 + 1)(random);
}

}  // namespace

Connection::Connection(Loop& loop, Owner& owner, Options options)
    : loop_(loop),
      owner_(owner),
      options_(std::move(options)),
      reconnect_(loop, [this] { connect(); }),
      scanner_(options_.reply_bytes_max) {}

void Connection::connect() {
  if (state_ == State::closing) return;
  if (options_.address == Address{}) {  // set_address() goes on
    down_reason_ = "no primary is known yet";
    state_ = State::waiting;
    return;
  }
  state_ = State::connecting;
  connect_started_ns_ = monotonic_ns();
  resp_ = options_.resp;
  stream_ = std::make_unique<Stream>(loop_, *this);
  stream_->connect(options_.address, options_.attempt, options_.keepalive_s);
}

void Connection::on_connected(int status) {
  if (status != 0) {
    ++options_.attempt;
    return lose(uv_strerror(status));
  }
  introduce();
}

void Connection::introduce() {
  state_ = State::introducing;
  scanner_.reset();
  reply_begun_ = false;
  whole_.clear();
  introduction_.clear();
  introduction_steps_.clear();
  introduction_step_ = 0;
  tracking_ = options_.tracking;
  const Identity& who = options_.identity;
  const auto add = [&](Step step, std::initializer_list<Bytes> args) {
    introduction_steps_.push_back(step);
    resp::write_request(introduction_, args);
  };
  if (who.given && who.with_user) add(kAuth, {"AUTH", who.user, who.password});
  if (who.given && !who.with_user) add(kAuth, {"AUTH", who.password});
  if (options_.resp == 3) add(kHello, {"HELLO", "3"});
  if (options_.database != 0) add(kSelect, {"SELECT", std::to_string(options_.database)});
  if (options_.readonly) add(kReadonly, {"READONLY"});
  if (tracking_) add(kTracking, {"CLIENT", "TRACKING", "ON", "OPTIN"});
  probe_refused_ = probe_pushed_ = false;
  tracking_refusal_.clear();
  if (tracking_ && !options_.probe_key.empty()) {
    // The push for the own write comes between the replies to SET and DEL (redis-facts).
    add(kProbe, {"CLIENT", "CACHING", "YES"});
    add(kProbe, {"EXISTS", options_.probe_key});
    add(kProbe, {"SET", options_.probe_key, "1", "PX", "1000"});
    add(kProbeEnd, {"DEL", options_.probe_key});
  }
  add(kName, {"CLIENT", "SETNAME", options_.client_name});
  if (options_.resp == 2) add(kId, {"CLIENT", "ID"});  // RESP3's HELLO tells it
  stream_->start_reading();
  if (!stream_->flush(introduction_)) lose("connection lost");
}

void Connection::on_introduction_reply(Bytes reply) {
  const auto step = static_cast<Step>(introduction_steps_[introduction_step_++]);
  const bool error = reply[0] == '-';
  if (error && (step == kAuth || step == kSelect || step == kHello)) {
    const bool too_old = step == kHello && (starts_with(reply, "-ERR unknown command") ||
                                            starts_with(reply, "-NOPROTO"));
    if (!too_old) {
      refusal_.assign(reply);
      lose_after_read_ = true;
      down_reason_ = "refused by the server: " + std::string(reply.substr(1, reply.size() - 3));
      return;
    }
    resp_ = 2;
    tracking_ = false;
    tracking_refusal_ = "the server has no RESP3";
  } else if (step == kHello) {
    read_hello(reply);
  } else if (step == kTracking && error) {
    tracking_ = false;
    if (tracking_refusal_.empty())
      tracking_refusal_ =
          "the server refuses CLIENT TRACKING: " + std::string(reply.substr(1, reply.size() - 3));
  } else if (step == kProbe) {
    probe_refused_ = probe_refused_ || error;
  } else if (step == kProbeEnd && tracking_ && !probe_refused_ && !probe_pushed_) {
    tracking_ = false;
    tracking_refusal_ = "the server did not push an invalidation for a tracked key";
  } else if (step == kId && reply[0] == ':') {
    std::from_chars(reply.data() + 1, reply.data() + reply.size(), upstream_id_);
  }
  if (introduction_step_ < introduction_steps_.size()) return;
  state_ = State::up;
  failures_ = 0;
  refusal_.clear();
  down_reason_.clear();
  backoff_ms_ = 0;
  progress_ns_ = monotonic_ns();
  owner_.on_up(*this);
  owner_.on_flush_needed(*this);
}

// HELLO's map is flat but for "modules", which comes last: the fields are found by their names.
void Connection::read_hello(Bytes reply) {
  hello_reply_.assign(reply);
  constexpr Bytes kVersion = "$7\r\nversion\r\n", kId = "$2\r\nid\r\n:";
  if (const size_t at = reply.find(kVersion); at != Bytes::npos) {
    const size_t begin = reply.find("\r\n", at + kVersion.size()) + 2;
    server_version_.assign(reply.substr(begin, reply.find("\r\n", begin) - begin));
  }
  if (const size_t at = reply.find(kId); at != Bytes::npos)
    std::from_chars(reply.data() + at + kId.size(), reply.data() + reply.size(), upstream_id_);
}

void Connection::send_unanswered(Bytes wire) {
  if (out_.empty()) owner_.on_flush_needed(*this);
  out_.append(wire);
  appended_ += wire.size();
  if (options_.keep_requests) sent_.append(wire);
}

void Connection::send(Bytes wire, Pending&& pending) {
  send_unanswered(wire);
  pending.stream_end = appended_;
  ++sequence_;
  pending_.push_back(std::move(pending));
}

void Connection::send(std::initializer_list<Bytes> args, Pending&& pending) {
  if (out_.empty()) owner_.on_flush_needed(*this);
  const size_t before = out_.size();
  resp::write_request(out_, args);
  appended_ += out_.size() - before;
  if (options_.keep_requests) sent_.append(out_.readable().substr(before));
  pending.stream_end = appended_;
  ++sequence_;
  pending_.push_back(std::move(pending));
}

void Connection::flush() {
  if (state_ == State::up && !stream_->flush(out_)) lose("connection lost");
}

void Connection::on_drained() {
  if (state_ == State::introducing) {
    if (!stream_->flush(introduction_)) lose("connection lost");
  } else {
    flush();
  }
}

void Connection::on_read(Bytes bytes) {
  progress_ns_ = monotonic_ns();
  in_read_ = true;
  while (!bytes.empty() && !lose_after_read_ && state_ != State::closing) {
    if (!reply_begun_) reply_type_ = bytes[0];
    reply_begun_ = true;
    const ReplyScanner::Step step = scanner_.scan(bytes);
    if (step.status == ReplyScanner::Status::bad) {
      down_reason_ =
          scanner_.too_long() ? kReplyTooLong : "the upstream sent something that is not RESP";
      lose_after_read_ = true;
      break;
    }
    const bool last = step.status == ReplyScanner::Status::done;
    const Bytes piece = bytes.substr(0, step.consumed);
    bytes.remove_prefix(step.consumed);
    if (last) reply_begun_ = false;
    if (!take_reply(piece, last)) lose_after_read_ = true;
  }
  in_read_ = false;
  if (lose_after_read_) {
    lose_after_read_ = false;
    const std::string reason = down_reason_;
    lose(reason, std::exchange(lost_by_peer_, true));
  }
}

bool Connection::take_reply(Bytes piece, bool last) {
  const bool push = reply_type_ == '>' && resp_ == 3;
  Pending* front = front_pending();
  const bool whole = state_ == State::introducing || push || wants_whole_ ||
                     (options_.keep_requests && reply_type_ == '-') ||
                     (front != nullptr && (front->kind == Pending::Kind::whole ||
                                           front->event != 0 || front->whole_reply));
  if (whole && !(last && whole_.empty() && !drop_reply_)) {
    if (whole_.size() + piece.size() > options_.reply_bytes_max) {
      down_reason_ = kReplyTooLong;
      if (front == nullptr || push || state_ == State::introducing || options_.once) return false;
      drop_reply_ = true;  // only this request's: the link is others' too
      whole_.clear();
    }
    if (drop_reply_) {
      if (last) {
        drop_reply_ = false;
        Pending failed = std::move(*front);
        pending_.pop_front();
        report(failed);
        owner_.on_lost(*this, failed, kReplyTooLong, true);
      }
      return true;
    }
    whole_.append(piece);
    if (!last) return true;
    piece = whole_.readable();
  }
  Buffer kept = std::move(whole_);  // `piece` may lie in it; callbacks may start the next reply
  if (state_ == State::introducing) {
    if (push) probe_pushed_ = probe_pushed_ || piece.find(options_.probe_key) != Bytes::npos;
    else on_introduction_reply(piece);
    return true;
  }
  if (push || (wants_whole_ && owner_.is_message(*this, piece))) {
    owner_.on_push(*this, piece);
    return true;
  }
  if (front == nullptr) {
    down_reason_ = "the upstream sent a reply to no request: " +
                   std::string(piece.substr(0, std::min<size_t>(piece.size(), 80)));
    return false;
  }
  if (!last) {
    front->begun = true;  // before the call, which may close this connection
    owner_.on_reply(*this, *front, piece, false);
    return true;
  }
  Pending done = std::move(*front);
  pending_.pop_front();
  report(done);
  owner_.on_reply(*this, done, piece, true);
  return true;
}

void Connection::tick(uint64_t now_ns) {
  if (state_ == State::connecting || state_ == State::introducing) {
    if (now_ns > connect_started_ns_ + options_.connect_timeout_ms * kNsPerMs)
      return lose("connecting timed out");
  }
  if (pending_.empty() && sent_.size() > 0) {
    sent_.clear();
    sent_from_ = report_begin_ = report_end_ = appended_;
  }
  if (state_ == State::up) {
    const Pending* front = front_pending();
    if (front != nullptr && !front->no_timeout &&
        now_ns > std::max(front->sent_ns, progress_ns_) + options_.timeout_ms * kNsPerMs)
      lose("no reply within upstream.timeout");
    return;
  }
  // Not up: nothing pending has been written. What waited too long is answered and taken back.
  while (!pending_.empty() &&
         now_ns > pending_.front().sent_ns + options_.connect_timeout_ms * kNsPerMs) {
    Pending late = std::move(pending_.front());
    pending_.pop_front();
    out_.consume(late.stream_end - (appended_ - out_.size()));
    report(late);
    owner_.on_lost(*this, late, down_reason_.empty() ? "connecting" : Bytes(down_reason_), false);
  }
}

void Connection::fail(Bytes reason, bool unwritten_too) {
  const uint64_t written = unwritten_too ? UINT64_MAX : appended_ - out_.size();
  while (!pending_.empty() && pending_.front().stream_end <= written) {
    Pending lost = std::move(pending_.front());
    pending_.pop_front();
    const bool sent = lost.stream_end <= appended_ - out_.size();
    report(lost);
    owner_.on_lost(*this, lost, reason, sent);
  }
}

// Requests are answered in the order in which they were sent: what lies before this one is of no
// use any more.
void Connection::report(const Pending& pending) {
  if (!options_.keep_requests) return;
  sent_.consume(report_end_ - sent_from_);
  sent_from_ = report_begin_ = report_end_;
  report_end_ = pending.stream_end;
}

std::string Connection::request() const {
  if (!options_.keep_requests) return {};
  return std::string(
      sent_.readable().substr(report_begin_ - sent_from_, report_end_ - report_begin_));
}

void Connection::abandon(Bytes reason) {
  if (state_ == State::up || state_ == State::closing) return;
  RingQueue<Pending> waiting;
  std::swap(waiting, pending_);
  out_.clear();
  while (!waiting.empty()) {
    Pending lost = std::move(waiting.front());
    waiting.pop_front();
    report(lost);
    owner_.on_lost(*this, lost, reason, false);
  }
}

void Connection::set_address(const Address& address) {
  options_.address = address;
  options_.attempt = 0;
  backoff_ms_ = 0;
  failures_ = 0;
  if (state_ == State::waiting && !options_.once) reconnect_.start(0, 0);
}

void Connection::lose(Bytes reason, bool by_peer) {
  if (state_ == State::closing || state_ == State::waiting) return;
  if (in_read_) {
    down_reason_.assign(reason);
    lose_after_read_ = true;
    lost_by_peer_ = by_peer;
    return;
  }
  const std::string why(reason);
  down_reason_ = why;
  if (state_ != State::up && by_peer) ++failures_;
  state_ = State::waiting;
  if (stream_ != nullptr) {
    dying_.push_back(std::move(stream_));
    dying_.back()->close();
  }
  scanner_.reset();
  reply_begun_ = false;
  whole_.clear();
  drop_reply_ = false;
  introduction_.clear();
  tracking_ = false;
  // What is asked meanwhile is answered by the next link: in what that was asked to speak, or in
  // RESP2, which is the same bytes to whoever converts.
  resp_ = options_.resp;
  // Refused: what waits for this link would wait in vain.
  // With those that are sent again elsewhere, what was not written must not overtake them.
  const bool all = options_.once || !refusal_.empty() || options_.keep_requests;
  fail(why, all);
  if (state_ == State::closing) return;  // one of those who were told has closed this connection
  if (all) out_.clear();
  const std::string refusal = refusal_;
  owner_.on_down(*this, why, refusal);
  if (!options_.once && state_ == State::waiting) schedule_reconnect();
}

void Connection::schedule_reconnect() {
  backoff_ms_ = backoff_ms_ == 0 ? options_.reconnect_min_ms
                                 : std::min(backoff_ms_ * 2, options_.reconnect_max_ms);
  if (!refusal_.empty()) backoff_ms_ = options_.reconnect_max_ms;
  reconnect_.start(jittered(backoff_ms_), 0);
}

void Connection::on_eof() { lose("the upstream closed the connection"); }
void Connection::on_error(int status) { lose(uv_strerror(status)); }

void Connection::close() {
  if (state_ == State::closing) return;
  state_ = State::closing;
  reconnect_.close();
  out_.clear();
  fail("closed", true);
  if (stream_ != nullptr) {
    dying_.push_back(std::move(stream_));
    dying_.back()->close();
  }
  if (dying_.empty()) owner_.on_closed(*this);
}

void Connection::on_closed(Stream& stream) {
  std::erase_if(dying_, [&](const auto& dead) { return dead.get() == &stream; });
  if (state_ == State::closing && dying_.empty()) owner_.on_closed(*this);
}

}  // namespace nearcached
