// Depthwise convolutions on vectors of channels, compiled per instruction set by gemm_tile_body.h, which defines Vector
// and `load`.
namespace profl {
namespace {

template <int Count>
inline __attribute__((always_inline)) void lane_sums_of(int taps, const float* weights, const int32_t* offsets,
                                                        const float* from, const int32_t* places, float* to,
                                                        const int32_t* to_places) {
  const float* at[Count];
  Vector sum[Count] = {};
#pragma GCC unroll 8
  for (int j = 0; j < Count; ++j) at[j] = from + places[j];
  for (int t = 0; t < taps; ++t) {
    const Vector weight = load(weights + t * PROFL_LANES);
    const int64_t offset = offsets[t];
#pragma GCC unroll 8
    for (int j = 0; j < Count; ++j) sum[j] += weight * load(at[j] + offset);
  }
#pragma GCC unroll 8
  for (int j = 0; j < Count; ++j) *reinterpret_cast<Vector*>(to + to_places[j]) = sum[j];
}

void lane_sums(int taps, const float* weights, const int32_t* offsets, const float* from, const int32_t* places,
               int64_t count, float* to, const int32_t* to_places) {
  int64_t j = 0;
  for (; j + 8 <= count; j += 8) lane_sums_of<8>(taps, weights, offsets, from, places + j, to, to_places + j);
  for (; j + 4 <= count; j += 4) lane_sums_of<4>(taps, weights, offsets, from, places + j, to, to_places + j);
  for (; j < count; ++j) lane_sums_of<1>(taps, weights, offsets, from, places + j, to, to_places + j);
}

template <int Dots>
void lane_dots(const float* a, const float* b, const int32_t* places, const int32_t* offsets, int64_t count,
               float* sums) {
  const float* at[Dots];
  Vector sum[Dots];
#pragma GCC unroll 16
  for (int t = 0; t < Dots; ++t) {
    at[t] = b + offsets[t];
    sum[t] = load(sums + t * PROFL_LANES);
  }
  for (int64_t j = 0; j < count; ++j) {
    const Vector factor = load(a + j * PROFL_LANES);
    const int64_t place = places[j];
#pragma GCC unroll 16
    for (int t = 0; t < Dots; ++t) sum[t] += factor * load(at[t] + place);
  }
#pragma GCC unroll 16
  for (int t = 0; t < Dots; ++t) *reinterpret_cast<Vector*>(sums + t * PROFL_LANES) = sum[t];
}

void lane_affine(const float* scale, const float* shift, float* values, int64_t count) {
  const Vector factor = load(scale), term = load(shift);
  for (int64_t j = 0; j < count; ++j, values += PROFL_LANES) {
    *reinterpret_cast<Vector*>(values) = load(values) * factor + term;
  }
}

}  // namespace
}  // namespace profl
