// Element-by-element work cut into pieces, whose bounds follow from the shape alone.
#pragma once

#include <algorithm>
#include <cstdint>

#include "threads/thread_pool.h"

namespace profl {

constexpr int64_t kPiece = 1 << 15;  // elements of one task

// body(first, last) for every piece of [0, elements).
template <typename Body>
void pieces(int64_t elements, const Body& body) {
  parallel_for((elements + kPiece - 1) / kPiece, [&](int64_t task, float*) {
    const int64_t first = task * kPiece;
    body(first, std::min(elements, first + kPiece));
  });
}

// body(first, last) for pieces of [0, rows) that hold about kPiece elements each.
template <typename Body>
void row_pieces(int64_t rows, int64_t row_elements, const Body& body) {
  const int64_t most = std::max<int64_t>(1, kPiece / std::max<int64_t>(1, row_elements));
  parallel_for((rows + most - 1) / most, [&](int64_t task, float*) {
    const int64_t first = task * most;
    body(first, std::min(rows, first + most));
  });
}

}  // namespace profl
