// Element by element: addition and filling; and sums over everything but the channel.
#include <algorithm>

#include "kernels/common/kernels.h"
#include "kernels/common/pieces.h"
#include "threads/thread_pool.h"

namespace profl {
namespace {

// Outputs may be an input itself, never shifted against it: `ivdep` tells the compiler that vectors are safe.

PROFL_CLONES void add_range(const float* a, const float* b, bool relu, float* out, int64_t first, int64_t last) {
#pragma GCC ivdep
  for (int64_t i = first; i < last; ++i) {
    const float value = a[i] + b[i];
    out[i] = relu && value < 0.0f ? 0.0f : value;
  }
}

PROFL_CLONES void add_columns(const float* row, int64_t count, double* sums) {
  for (int64_t i = 0; i < count; ++i) sums[i] += row[i];
}

}  // namespace

void add(Context&, Stack stack) {
  const Arguments a(stack);
  pieces(a.elements(0),
         [&](int64_t first, int64_t last) { add_range(a.read(0), a.read(1), a.flag(2), a.write(3), first, last); });
}

void fill(Context&, Stack stack) {
  const Arguments a(stack);
  std::fill_n(a.write(1), a.elements(1), a.number(0));
}

// Whether element `index` is not zero, as a boolean that a jump can ask.
void is_set(Context&, Stack stack) {
  const Arguments a(stack);
  *a.tensor(2).mutable_data_ptr<bool>() = a.read(0)[a.integer(1)] != 0.0f;
}

void channel_sum(Context&, Stack stack) {
  const Arguments a(stack);
  const Channels c(a.tensor(0));
  const float* x = a.read(0);
  float* out = a.write(1);
  if (c.inner == 1) {
    // Rows of features: some columns of all rows at a time.
    constexpr int64_t kColumns = 128;
    parallel_for((c.channels + kColumns - 1) / kColumns, [&](int64_t task, float*) {
      const int64_t first = task * kColumns, columns = std::min(kColumns, c.channels - first);
      double sums[kColumns] = {};
      for (int64_t n = 0; n < c.batch; ++n) add_columns(x + n * c.channels + first, columns, sums);
      std::copy_n(sums, columns, out + first);
    });
    return;
  }
  parallel_for(c.channels, [&](int64_t channel, float*) {
    double total = 0;
    for (int64_t n = 0; n < c.batch; ++n) {
      const float* row = x + (n * c.channels + channel) * c.inner;
      double part = 0;
      for (int64_t i = 0; i < c.inner; ++i) part += row[i];
      total += part;
    }
    out[channel] = static_cast<float>(total);
  });
}

}  // namespace profl
