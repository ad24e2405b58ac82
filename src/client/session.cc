// Requests are parsed where they were read, by the worker's one parser; only a session with bytes
// that cannot be handled yet has a parser and a buffer of its own. Every way a session can stand
// still (waiting for its turn, for a lane, for the client to read) ends in wake() or on_drained(),
// which put it on the worker's list of sessions to resume.
#include "client/session.h"

#include <algorithm>

#include "nearcached/resp/writer.h"

namespace nearcached {
namespace {

// While it stands still, a session may still be read into memory up to this much (so that a
// pipeline is not cut into single reads), then the socket's own buffer is the limit.
constexpr size_t kStandingInputBytes = 256 * 1024;

}  // namespace

RequestLimits Session::limits_of(const Config& config) {
  RequestLimits limits;
  limits.args_max = config.limits.request_args;
  limits.bulk_bytes_max = config.limits.bulk_bytes;
  return limits;
}

Session::Session(Loop& loop, Owner& owner, SessionRef reference, uint64_t identifier)
    : ref(reference), id(identifier), owner_(owner), stream_(loop, *this, sizeof(Session)) {}

bool Session::open(int fd, bool is_unix) {
  if (!stream_.open(fd, is_unix, owner_.config().server.tcp_keepalive_s)) return false;
  created_ns = active_ns = owner_.now_ns();
  stream_.start_reading();
  return true;
}

std::span<char> Session::read_space() {
  // A big argument is read straight into its place, in steps of what has already arrived.
  if (!partial_ || input_->parser.bytes_needed() < input_->bytes.size() + Loop::kReadBytes)
    return {};
  const size_t step = std::clamp<size_t>(input_->bytes.size(), Loop::kReadBytes, 16u << 20);
  return {input_->bytes.reserve(step), step};
}

void Session::on_read(Bytes bytes) {
  active_ns = owner_.now_ns();
  if (finishing_ || fin_sent_ns_ > 0) return;  // what comes after QUIT is not read, as in Redis
  if (input_ == nullptr) {
    const size_t consumed = process(owner_.parser(), bytes);
    if (closing()) return owner_.parser().reset();
    if (consumed < bytes.size()) keep(bytes.substr(consumed));
  } else {
    Buffer& kept = input_->bytes;
    if (bytes.data() == kept.data() + kept.size()) kept.commit(bytes.size());
    else kept.append(bytes);
    process_input();
    if (closing()) return;
  }
  if (partial_ && input_->bytes.size() > owner_.config().limits.request_bytes) {
    owner_.on_limit(request_too_big);
    return close();
  }
  // All is answered: nothing of this turn can follow. Written now, a thousand clients' replies go
  // through one block of memory that stays in the cache.
  if (dirty_ && replies_.empty()) return flush();
  settle();
}

void Session::foresee(Bytes bytes, bool last) {
  owner_.foresee(*this, input_ == nullptr && !closing() ? bytes : Bytes(), last);
}

// If a request has begun, the parser that has read its beginning comes along.
void Session::keep(Bytes rest) {
  input_ = std::make_unique<Input>(Input{RequestParser(limits_of(owner_.config())), Buffer()});
  if (partial_) std::swap(input_->parser, owner_.parser());
  input_->bytes.append(rest);
}

void Session::process_input() {
  const size_t consumed = process(input_->parser, input_->bytes.readable());
  input_->bytes.consume(consumed);
  if (input_->bytes.empty()) input_.reset();
}

// Handles requests from `bytes` until they end or the session must stand still.
size_t Session::process(RequestParser& parser, Bytes bytes) {
  size_t done = 0, consumed = 0;
  Request request;
  while (!waiting_ && !finishing_ && done < bytes.size() && !must_pause()) {
    if (!partial_ && replies_.empty() && !skip_next && !muted()) {
      const size_t served = owner_.serve_hits(*this, bytes.substr(done));
      done += served;
      if (served > 0) continue;
    }
    partial_ = false;
    parser.set_unauthenticated(unauthenticated_);
    const ParseStatus status = parser.parse(bytes.substr(done), request, consumed);
    if (status == ParseStatus::need_more) {
      done += consumed;
      partial_ = done < bytes.size();
      break;
    }
    if (status == ParseStatus::protocol_error) {
      skip_this = reply_off = false;
      owner_.on_limit(protocol);
      reply("-ERR " + parser.error() + "\r\n");
      close_when_done();
      done = bytes.size();
      break;
    }
    request.behind = bytes.substr(done + consumed);
    if (owner_.on_request(*this, request) == Outcome::later) {
      waiting_ = true;
      parser.reset();
      break;
    }
    done += consumed;
    skip_this = skip_next;
    skip_next = false;
    if (closing()) break;
  }
  // Between requests, and only there, the parser may be called with nothing: it then lets a giant
  // request's memory go.
  if (done == bytes.size() && !partial_) parser.parse({}, request, consumed);
  return done;
}

bool Session::must_pause() {
  if (replies_.outstanding() >= owner_.config().limits.client_inflight) {
    if (!paused_) owner_.on_limit(inflight_paused);
    paused_ = true;
  } else if (wants_flush()) {
    // What has been answered may go out now: that the socket takes it is the usual case.
    if (!stream_.flush(replies_.out())) {
      paused_ = true;  // broken: the stream's error callback or the next flush closes
    } else if (output_bytes() > owner_.config().limits.client_output_pause_bytes) {
      if (!paused_) owner_.on_limit(output_paused);
      paused_ = true;
    }
  }
  return paused_;
}

// After handling: read on, stand still, or close.
void Session::settle() {
  if (closing()) return;
  const bool still = waiting_ || paused_;
  if (still && input_bytes() >= kStandingInputBytes) stream_.stop_reading();
  else if (!eof_ && taking_ && !stream_.reading()) stream_.start_reading();
  if (eof_ && gives_up_on_eof) return close();
  const bool done = replies_.empty() && output_bytes() == 0;
  if (!done || still) return;
  if (finishing_ || eof_) close();
}

void Session::resume() {
  resumable_ = false;
  if (closing()) return;
  paused_ = waiting_ = false;
  if (input_ != nullptr && !finishing_) {
    process_input();
    if (closing()) return;
  }
  settle();
}

void Session::wake() {
  if ((!waiting_ && !paused_ && !eof_ && !finishing_) || resumable_ || closing()) return;
  resumable_ = true;
  owner_.on_resumable(*this);
}

void Session::mark_dirty() {
  if (dirty_) return;
  dirty_ = true;
  owner_.on_dirty(*this);
}

void Session::reply(Bytes bytes) {
  if (replies_.empty()) {
    if (!muted()) direct_out().append(bytes);
    return;
  }
  replies_.deliver(reserve(), bytes, true);
}

void Session::deliver(ReplyQueue::Slot slot, Bytes bytes, bool last) {
  replies_.deliver(slot, bytes, last);
  mark_dirty();
  if (last) wake();
  // One huge reply may be as long as the server sends it; several may not pile up without limit.
  if (output_bytes() > owner_.config().limits.client_output_bytes && replies_.outstanding() > 1) {
    owner_.on_limit(output_closed);
    close();
  }
}

void Session::release(ReplyQueue::Slot slot) {
  replies_.release(slot);
  mark_dirty();
  wake();
}

void Session::out_of_band(Bytes bytes, const ReplyQueue::Slot* before) {
  replies_.out_of_band(bytes, before);
  mark_dirty();
  if (output_bytes() > owner_.config().limits.client_output_bytes) {
    owner_.on_limit(output_closed);
    close();
  }
}

bool Session::flush_at_turn_end() {
  if (lookahead != nullptr && outstanding() && output_bytes() <= kEagerFlushBytes &&
      ++deferrals_ <= kDeferrals)
    return false;
  dirty_ = false;
  flush();
  return true;
}

void Session::flush() {
  deferrals_ = 0;
  if (closing()) return;
  if (!stream_.flush(replies_.out())) return close();
  if (paused_ && output_bytes() <= owner_.config().limits.client_output_pause_bytes / 2) wake();
  settle();
}

void Session::on_drained() {
  if (!stream_.flush(replies_.out())) return close();
  if (output_bytes() <= owner_.config().limits.client_output_pause_bytes / 2) wake();
  settle();
}

void Session::on_eof() {
  eof_ = true;
  // Redis gives a blocked client up when it hangs up; everybody else still gets the replies.
  if (gives_up_on_eof) return close();
  wake();
  settle();
}

void Session::on_error(int) { close(); }

void Session::close_when_done() {
  finishing_ = true;
  mark_dirty();
}

void Session::drain(uint64_t quiet_ns, uint64_t linger_ns, bool stop_taking) {
  const uint64_t now_ns = owner_.now_ns();
  if (fin_sent_ns_ > 0) {
    if (now_ns > fin_sent_ns_ + linger_ns) close();
    return;
  }
  if (gives_up_on_eof) return close();  // it waits for somebody else, perhaps for ever
  taking_ = !stop_taking;
  if (!taking_) stream_.stop_reading();
  const bool owes = !replies_.empty() || output_bytes() > 0 || waiting_ || paused_;
  if (owes || (taking_ && now_ns < active_ns + quiet_ns)) return;
  fin_sent_ns_ = now_ns;
  stream_.shutdown_write();
  stream_.start_reading();  // to see its end
}

void Session::close() {
  if (closing()) return;
  stream_.close();  // first: what the owner lets go of may answer or close this session again
  owner_.on_closing(*this);
}

void Session::on_closed(Stream&) { owner_.on_closed(*this); }

}  // namespace nearcached
