// A line on standard error that says how far the training is, only for people and only where waiting is noticeable.
#pragma once

#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>

namespace profl {

class ProgressLine {
 public:
  ProgressLine(int64_t before, int64_t total)
      : before_(before),
        total_(total),
        enabled_(isatty(STDERR_FILENO) == 1),
        started_(Clock::now()),
        next_(started_ + std::chrono::seconds(2)) {}
  ~ProgressLine() {
    if (drawn_) std::fputs("\r\x1b[K", stderr);
  }

  void update(int64_t done, double loss) {
    const Clock::time_point now = Clock::now();
    if (!enabled_ || now < next_) return;
    const double passed = std::chrono::duration<double>(now - started_).count();
    const double left = passed * static_cast<double>(total_ - done) / static_cast<double>(done - before_);
    std::fprintf(stderr, "\r%lld/%lld, loss %.4f, %.0f s left\x1b[K", static_cast<long long>(done),
                 static_cast<long long>(total_), loss, left);
    next_ = now + std::chrono::milliseconds(200);
    drawn_ = true;
  }

 private:
  using Clock = std::chrono::steady_clock;

  int64_t before_, total_;
  bool enabled_, drawn_ = false;
  Clock::time_point started_, next_;
};

}  // namespace profl
