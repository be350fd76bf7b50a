// Small inline helpers of everything that packs and cuts.
#pragma once

#include <cstdint>

namespace profl {

// to[j * stride + r] = rows[r * row_stride + j] for four rows and four j.
inline void turn_quad(const float* rows, int64_t row_stride, int64_t stride, float* to) {
  typedef float Quad __attribute__((vector_size(16), aligned(4), may_alias));
  typedef int Index __attribute__((vector_size(16)));
  Quad r[4];
  for (int i = 0; i < 4; ++i) r[i] = *reinterpret_cast<const Quad*>(rows + i * row_stride);
  const Quad a = __builtin_shuffle(r[0], r[1], Index{0, 4, 1, 5}), b = __builtin_shuffle(r[2], r[3], Index{0, 4, 1, 5});
  const Quad c = __builtin_shuffle(r[0], r[1], Index{2, 6, 3, 7}), d = __builtin_shuffle(r[2], r[3], Index{2, 6, 3, 7});
  *reinterpret_cast<Quad*>(to) = __builtin_shuffle(a, b, Index{0, 1, 4, 5});
  *reinterpret_cast<Quad*>(to + stride) = __builtin_shuffle(a, b, Index{2, 3, 6, 7});
  *reinterpret_cast<Quad*>(to + 2 * stride) = __builtin_shuffle(c, d, Index{0, 1, 4, 5});
  *reinterpret_cast<Quad*>(to + 3 * stride) = __builtin_shuffle(c, d, Index{2, 3, 6, 7});
}

inline void copy_quad(const float* from, float* to) {
  typedef float Quad __attribute__((vector_size(16), aligned(4), may_alias));
  *reinterpret_cast<Quad*>(to) = *reinterpret_cast<const Quad*>(from);
}

inline int64_t ceil_div(int64_t value, int64_t by) { return (value + by - 1) / by; }
inline int64_t round_up(int64_t value, int64_t to) { return ceil_div(value, to) * to; }

}  // namespace profl
