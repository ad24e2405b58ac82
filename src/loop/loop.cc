// Loop, Timer, Mailbox, Signal: thin owners of libuv handles.
//
// libuv wants a handle's memory until its close callback has run. Handles that can outlive their
// owner's interest (timers, signals) are therefore allocated on their own and freed by that
// callback.
#include "loop/loop.h"

#include <csignal>

#include "nearcached/base/check.h"

namespace nearcached {

Loop::Loop() : read_buffer_(kReadBytes + kGatheredMax * kGatheredBytes) {
  NC_CHECK(uv_loop_init(&loop_) == 0);
  uv_prepare_init(&loop_, &prepare_);
  prepare_.data = this;
  uv_check_init(&loop_, &check_);
  check_.data = this;
  uv_check_start(&check_, [](uv_check_t* check) { static_cast<Loop*>(check->data)->deliver(); });
  uv_idle_init(&loop_, &idle_);
}

Loop::~Loop() { uv_loop_close(&loop_); }

void Loop::run() { uv_run(&loop_, UV_RUN_DEFAULT); }

void Loop::on_turn_end(std::function<void()> callback) {
  turn_end_ = std::move(callback);
  uv_prepare_start(&prepare_,
                   [](uv_prepare_t* prepare) { static_cast<Loop*>(prepare->data)->turn_end_(); });
}

void Loop::turn_again() {
  uv_idle_start(&idle_, [](uv_idle_t* idle) { uv_idle_stop(idle); });
}

void Loop::close() {
  if (uv_is_closing(reinterpret_cast<uv_handle_t*>(&prepare_))) return;
  uv_close(reinterpret_cast<uv_handle_t*>(&prepare_), nullptr);
  uv_close(reinterpret_cast<uv_handle_t*>(&check_), nullptr);
  uv_close(reinterpret_cast<uv_handle_t*>(&idle_), nullptr);
}

void Loop::gather(Stream& stream, Bytes bytes) {
  stream.waits_ = true;
  const auto* handler = reinterpret_cast<const char*>(&stream.handler_);
  for (size_t at = 0; at < stream.gathered_bytes_; at += 64) __builtin_prefetch(handler + at);
  arrivals_[arrivals_count_++] = {&stream, bytes};
  gathered_bytes_ += bytes.size();
  if (arrivals_count_ == kGatheredMax) deliver();
}

void Loop::deliver() {
  const std::span<const Arrival> arrivals(arrivals_.data(), arrivals_count_);
  if (arrivals.size() > 1)
    for (const Arrival& arrival : arrivals)
      arrival.stream->handler_.foresee(arrival.bytes, &arrival == &arrivals.back());
  for (const Arrival& arrival : arrivals) {
    arrival.stream->waits_ = false;
    if (!arrival.stream->closing_) arrival.stream->handler_.on_read(arrival.bytes);
  }
  arrivals_count_ = gathered_bytes_ = 0;
}

Timer::Timer(Loop& loop, std::function<void()> callback)
    : handle_(new Handle{{}, std::move(callback)}) {
  uv_timer_init(loop.raw(), &handle_->timer);
  handle_->timer.data = handle_;
}

void Timer::start(uint64_t first_ms, uint64_t repeat_ms) {
  uv_update_time(handle_->timer.loop);
  uv_timer_start(
      &handle_->timer, [](uv_timer_t* timer) { static_cast<Handle*>(timer->data)->callback(); },
      first_ms, repeat_ms);
}

void Timer::close() {
  if (handle_ == nullptr) return;
  uv_close(reinterpret_cast<uv_handle_t*>(&handle_->timer),
           [](uv_handle_t* handle) { delete static_cast<Handle*>(handle->data); });
  handle_ = nullptr;
}

Mailbox::Mailbox(Loop& loop) {
  uv_async_init(loop.raw(), &async_,
                [](uv_async_t* async) { static_cast<Mailbox*>(async->data)->drain(); });
  async_.data = this;
}

bool Mailbox::post(Task task) {
  std::lock_guard lock(mutex_);
  if (closed_) return false;
  tasks_.push_back(std::move(task));
  if (tasks_.size() == 1) uv_async_send(&async_);
  return true;
}

void Mailbox::drain() {
  std::vector<Task> tasks;
  {
    std::lock_guard lock(mutex_);
    tasks.swap(tasks_);
  }
  for (Task& task : tasks) task();
}

void Mailbox::close() {
  {
    std::lock_guard lock(mutex_);
    if (closed_) return;
    closed_ = true;
  }
  uv_close(reinterpret_cast<uv_handle_t*>(&async_), nullptr);
}

Signal::Signal(Loop& loop, int number, std::function<void()> callback)
    : handle_(new Handle{{}, std::move(callback)}) {
  uv_signal_init(loop.raw(), &handle_->signal);
  handle_->signal.data = handle_;
  uv_signal_start(
      &handle_->signal,
      [](uv_signal_t* signal, int) { static_cast<Handle*>(signal->data)->callback(); }, number);
}

Signal::~Signal() {
  uv_close(reinterpret_cast<uv_handle_t*>(&handle_->signal),
           [](uv_handle_t* handle) { delete static_cast<Handle*>(handle->data); });
}

}  // namespace nearcached
