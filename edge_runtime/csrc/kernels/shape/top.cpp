// The largest elements of rows, in order, and their gradient. Among equal ones the first comes first, and a NaN is
// larger than every number.
#include <algorithm>

#include "kernels/common/kernels.h"
#include "kernels/common/pieces.h"

namespace profl {
namespace {

struct Entry {
  float value;
  int32_t place;
};

bool is_above(float a, float b) { return a > b || (a != a && b == b); }

bool is_before(const Entry& a, const Entry& b) {
  if (is_above(a.value, b.value)) return true;
  return !is_above(b.value, a.value) && a.place < b.place;
}

// The `count` largest of a row in front, in order. The row is copied first: what another thread writes there meanwhile
// does not confuse the order.
void sort_row(const float* x, int64_t width, int64_t count, Entry* entries) {
  for (int64_t i = 0; i < width; ++i) entries[i] = {x[i], static_cast<int32_t>(i)};
  std::partial_sort(entries, entries + count, entries + width, is_before);
}

int64_t first_largest(const float* x, int64_t width) {
  int64_t found = 0;
  float largest = x[0];
  for (int64_t i = 1; i < width; ++i) {
    const float value = x[i];
    if (!is_above(value, largest)) continue;
    largest = value;
    found = i;
  }
  return found;
}

void share(float gradient, const float* x, int64_t width, float* to_x) {
  const float largest = x[first_largest(x, width)];
  int64_t count = 0;
  for (int64_t i = 0; i < width; ++i) count += x[i] == largest;
  const float part = gradient / static_cast<float>(count);
  for (int64_t i = 0; i < width; ++i) to_x[i] = x[i] == largest ? part : 0.0f;
}

// body(row, entries) for every row, with the running thread's room for entries.
template <typename Body>
void for_rows(int64_t rows, int64_t width, const Body& body) {
  const int64_t most = std::max<int64_t>(1, kPiece / width);
  parallel_for((rows + most - 1) / most, [&](int64_t task, float* workspace) {
    for (int64_t row = task * most; row < std::min(rows, (task + 1) * most); ++row) {
      body(row, reinterpret_cast<Entry*>(workspace));
    }
  });
}

}  // namespace

void top(Context&, Stack stack) {
  const Arguments a(stack);
  const int64_t width = a.size(0, 1), count = a.size(1, 1);
  for_rows(a.size(0, 0), width, [&](int64_t row, Entry* entries) {
    const float* x = a.read(0) + row * width;
    float* y = a.write(1) + row * count;
    if (count == 1) {
      *y = x[first_largest(x, width)];
      return;
    }
    sort_row(x, width, count, entries);
    for (int64_t k = 0; k < count; ++k) y[k] = entries[k].value;
  });
}

void top_backward(Context&, Stack stack) {
  const Arguments a(stack);
  const int64_t width = a.size(1, 1), count = a.size(0, 1);
  const bool shared = a.flag(2);
  for_rows(a.size(1, 0), width, [&](int64_t row, Entry* entries) {
    const float *gradient = a.read(0) + row * count, *x = a.read(1) + row * width;
    float* to_x = a.write(3) + row * width;
    if (shared) return share(*gradient, x, width, to_x);
    if (count > 1) sort_row(x, width, count, entries);
    const int64_t first = count > 1 ? 0 : first_largest(x, width);
    std::fill_n(to_x, width, 0.0f);
    if (count == 1) to_x[first] = *gradient;
    for (int64_t k = 0; count > 1 && k < count; ++k) to_x[entries[k].place] = gradient[k];
  });
}

}  // namespace profl
