// Rows by constant numbers (gathers, mirrored and repeated elements), and their gradient.
#include <algorithm>

#include "kernels/common/kernels.h"
#include "kernels/common/pieces.h"

namespace profl {
namespace {

PROFL_CLONES void add_row(const float* row, int64_t width, float* to) {
  for (int64_t i = 0; i < width; ++i) to[i] += row[i];
}

// Whole numbers up to 2^24, which the exporter keeps to, are floats; a NaN is outside.
bool inside(float place, int64_t rows) { return place >= 0.0f && place < static_cast<float>(rows); }

bool all_inside(const float* places, int64_t count, int64_t rows) {
  return std::all_of(places, places + count, [rows](float place) { return inside(place, rows); });
}

// The row of a place, within the tensor also where the place was overwritten after it was checked.
int64_t row_at(float place, int64_t rows) {
  return inside(place, rows) ? std::min(static_cast<int64_t>(place), rows - 1) : 0;
}

}  // namespace

// y[o][t] = x[o][places[t]]
void take(Context& context, Stack stack) {
  const Arguments a(stack);
  const int64_t outer = a.size(0, 0), rows = a.size(0, 1), width = a.size(0, 2), count = a.elements(1);
  const float* places = a.read(1);
  if (!all_inside(places, count, rows)) {
    context.fail(Error::InvalidArgument);
    return;
  }
  row_pieces(outer * count, width, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last;) {
      const int64_t o = i / count, begin = i - o * count, end = std::min(count, begin + last - i);
      const float* from = a.read(0) + o * rows * width;
      float* to = a.write(2) + i * width;
      for (int64_t t = begin; t < end; ++t, to += width) std::copy_n(from + row_at(places[t], rows) * width, width, to);
      i += end - begin;
    }
  });
}

// Every task owns a range of rows and adds to them in the order of the places: no two write one row, and the sum does
// not depend on how many threads there are.
void take_backward(Context& context, Stack stack) {
  const Arguments a(stack);
  const int64_t outer = a.size(2, 0), rows = a.size(2, 1), width = a.size(2, 2), count = a.elements(1);
  const float* places = a.read(1);
  if (!all_inside(places, count, rows)) {
    context.fail(Error::InvalidArgument);
    return;
  }
  row_pieces(outer * rows, width, [&](int64_t first, int64_t last) {
    std::fill(a.write(2) + first * width, a.write(2) + last * width, 0.0f);
    for (int64_t i = first; i < last;) {
      const int64_t o = i / rows, begin = i - o * rows, end = std::min(rows, begin + last - i);
      const float* from = a.read(0) + o * count * width;
      float* to = a.write(2) + o * rows * width;
      for (int64_t t = 0; t < count; ++t) {
        const int64_t row = row_at(places[t], rows);
        if (row >= begin && row < end) add_row(from + t * width, width, to + row * width);
      }
      i += end - begin;
    }
  });
}

}  // namespace profl
