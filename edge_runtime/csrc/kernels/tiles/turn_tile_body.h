// The turning between planes and vectors of channels, compiled per instruction set by gemm_tile_body.h, which defines
// Vector, load and save.
namespace profl {
namespace {

// Transposes PROFL_LANES vectors in registers.
template <int Distance>
inline __attribute__((always_inline)) void transpose_step(Vector (&v)[PROFL_LANES]) {
  typedef int Index __attribute__((vector_size(PROFL_LANES * 4)));
  Index low{}, high{};
#pragma GCC unroll 16
  for (int j = 0; j < PROFL_LANES; ++j) {
    low[j] = (j & Distance) == 0 ? j : PROFL_LANES + j - Distance;
    high[j] = (j & Distance) == 0 ? j + Distance : PROFL_LANES + j;
  }
#pragma GCC unroll 16
  for (int i = 0; i < PROFL_LANES; ++i) {
    if ((i & Distance) != 0) continue;
    const Vector a = v[i], b = v[i + Distance];
    v[i] = __builtin_shuffle(a, b, low);
    v[i + Distance] = __builtin_shuffle(a, b, high);
  }
}

inline __attribute__((always_inline)) void transpose(Vector (&v)[PROFL_LANES]) {
  transpose_step<1>(v);
  transpose_step<2>(v);
#if PROFL_LANES >= 8
  transpose_step<4>(v);
#endif
#if PROFL_LANES >= 16
  transpose_step<8>(v);
#endif
}

// Turns PROFL_LANES values of `lines` lines; `count` of them are wanted.
template <bool Whole>
inline __attribute__((always_inline)) void turn_block(const float* from, int64_t stride, int64_t lines, int64_t count,
                                                      const int32_t* places, int64_t j, float* to) {
  Vector v[PROFL_LANES];
#pragma GCC unroll 16
  for (int r = 0; r < PROFL_LANES; ++r) v[r] = Whole || r < lines ? load(from + r * stride + j) : Vector{};
  transpose(v);
#pragma GCC unroll 16
  for (int r = 0; r < PROFL_LANES; ++r) {
    if (Whole || j + r < count) save(to + (places == nullptr ? (j + r) * PROFL_LANES : places[j + r]), v[r]);
  }
}

void turn(const float* from, int64_t stride, int64_t lines, int64_t count, int64_t readable, const int32_t* places,
          float* to) {
  int64_t j = 0;
  for (; j < count && readable >= PROFL_LANES; j += PROFL_LANES) {
    j = std::min(j, readable - PROFL_LANES);  // the last vectors overlap those before
    if (lines == PROFL_LANES && j + PROFL_LANES <= count) {
      turn_block<true>(from, stride, lines, count, places, j, to);
    } else {
      turn_block<false>(from, stride, lines, count, places, j, to);
    }
  }
  for (; j < count; ++j) {
    float* lane = to + (places == nullptr ? j * PROFL_LANES : places[j]);
    for (int r = 0; r < PROFL_LANES; ++r) lane[r] = r < lines ? from[r * stride + j] : 0.0f;
  }
}

template <bool Whole>
inline __attribute__((always_inline)) void turn_block_back(const float* from, const int32_t* places, int64_t count,
                                                           int64_t j, float* to, int64_t stride) {
  Vector v[PROFL_LANES];
#pragma GCC unroll 16
  for (int r = 0; r < PROFL_LANES; ++r) v[r] = Whole || j + r < count ? load(from + places[j + r]) : Vector{};
  transpose(v);
#pragma GCC unroll 16
  for (int r = 0; r < PROFL_LANES; ++r) save(to + r * stride + j, v[r]);
}

void turn_back(const float* from, const int32_t* places, int64_t count, float* to, int64_t stride, bool spill) {
  int64_t j = 0;
  for (; j < count && (spill || count >= PROFL_LANES); j += PROFL_LANES) {
    if (!spill) j = std::min<int64_t>(j, count - PROFL_LANES);
    if (j + PROFL_LANES <= count) {
      turn_block_back<true>(from, places, count, j, to, stride);
    } else {
      turn_block_back<false>(from, places, count, j, to, stride);
    }
  }
  for (; j < count; ++j) {
    for (int r = 0; r < PROFL_LANES; ++r) to[r * stride + j] = from[places[j] + r];
  }
}

}  // namespace
}  // namespace profl
