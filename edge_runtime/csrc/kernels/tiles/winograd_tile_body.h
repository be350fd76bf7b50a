// Winograd's transforms, compiled per instruction set by gemm_tile_body.h, which defines Vector, load and save. A
// vector holds one position of PROFL_LANES channels.
//
// F(4x4, 3x3) has the points 0, +-5/8, +-3/2 and infinity. Their rounding error is half that of the usual 0, +-1, +-2,
// and their squares and products are exact in float32. F(2x2, 3x3) has 0, +-1 and infinity.
//
// With stride 2 the odd inputs meet the middle tap alone, and the even ones the two others as a convolution with stride
// 1, for which F(2, 2) has the points 0, 1 and infinity. So two outputs take 5 products instead of 6, two by two 25
// instead of 36. The input gradient is the same transposed.
#pragma once

namespace profl {
namespace {

constexpr float kA = 0.625f, kB = 1.5f;
constexpr float kAA = kA * kA, kBB = kB * kB;
constexpr float kAAA = kAA * kA, kBBB = kBB * kB;
constexpr float kScale0 = static_cast<float>(1.0 / (kAA * kBB));
constexpr float kScaleA = static_cast<float>(1.0 / (2.0 * kAA * (kAA - kBB)));
constexpr float kScaleB = static_cast<float>(1.0 / (2.0 * kBB * (kBB - kAA)));

// The one-dimensional transforms of each kind, from values `x` to values `y`.
struct Four {
  static constexpr int kInputStep = 4, kInputs = 6, kOutputs = 4, kWeights = 6, kSums = 6, kProducts = 6;
  static constexpr WinogradProduct kProduct[] = {{0, 0, 0}, {1, 1, 1}, {2, 2, 2}, {3, 3, 3}, {4, 4, 4}, {5, 5, 5}};

  // B^T: inputs to points.
  static inline __attribute__((always_inline)) void input(const Vector (&x)[6], Vector (&y)[6]) {
    const Vector even_a = x[4] - kBB * x[2], odd_a = kA * (x[3] - kBB * x[1]);
    const Vector even_b = x[4] - kAA * x[2], odd_b = kB * (x[3] - kAA * x[1]);
    y[0] = (kAA * kBB) * x[0] - (kAA + kBB) * x[2] + x[4];
    y[1] = even_a + odd_a;
    y[2] = even_a - odd_a;
    y[3] = even_b + odd_b;
    y[4] = even_b - odd_b;
    y[5] = (kAA * kBB) * x[1] - (kAA + kBB) * x[3] + x[5];
  }

  // G: weights to points.
  static inline __attribute__((always_inline)) void weight(const Vector (&x)[3], Vector (&y)[6]) {
    const Vector even_a = kScaleA * x[0] + (kScaleA * kAA) * x[2], odd_a = (kScaleA * kA) * x[1];
    const Vector even_b = kScaleB * x[0] + (kScaleB * kBB) * x[2], odd_b = (kScaleB * kB) * x[1];
    y[0] = kScale0 * x[0];
    y[1] = even_a + odd_a;
    y[2] = even_a - odd_a;
    y[3] = even_b + odd_b;
    y[4] = even_b - odd_b;
    y[5] = x[2];
  }

  // A^T: points to outputs.
  static inline __attribute__((always_inline)) void output(const Vector (&x)[6], Vector (&y)[4]) {
    const Vector even_a = x[1] + x[2], odd_a = x[1] - x[2], even_b = x[3] + x[4], odd_b = x[3] - x[4];
    y[0] = x[0] + even_a + even_b;
    y[1] = kA * odd_a + kB * odd_b;
    y[2] = kAA * even_a + kBB * even_b;
    y[3] = kAAA * odd_a + kBBB * odd_b + x[5];
  }

  // A: gradients of outputs to points.
  static inline __attribute__((always_inline)) void gradient(const Vector (&x)[4], Vector (&y)[6]) {
    const Vector even_a = x[0] + kAA * x[2], odd_a = kA * (x[1] + kAA * x[3]);
    const Vector even_b = x[0] + kBB * x[2], odd_b = kB * (x[1] + kBB * x[3]);
    y[0] = x[0];
    y[1] = even_a + odd_a;
    y[2] = even_a - odd_a;
    y[3] = even_b + odd_b;
    y[4] = even_b - odd_b;
    y[5] = x[3];
  }

  // G^T: points to gradients of weights.
  static inline __attribute__((always_inline)) void weight_gradient(const Vector (&x)[6], Vector (&y)[3]) {
    const Vector even_a = kScaleA * (x[1] + x[2]), odd_a = (kScaleA * kA) * (x[1] - x[2]);
    const Vector even_b = kScaleB * (x[3] + x[4]), odd_b = (kScaleB * kB) * (x[3] - x[4]);
    y[0] = kScale0 * x[0] + even_a + even_b;
    y[1] = odd_a + odd_b;
    y[2] = kAA * even_a + kBB * even_b + x[5];
  }
};

struct Two {
  static constexpr int kInputStep = 2, kInputs = 4, kOutputs = 2, kWeights = 4, kSums = 4, kProducts = 4;
  static constexpr WinogradProduct kProduct[] = {{0, 0, 0}, {1, 1, 1}, {2, 2, 2}, {3, 3, 3}};

  static inline __attribute__((always_inline)) void input(const Vector (&x)[4], Vector (&y)[4]) {
    y[0] = x[0] - x[2];
    y[1] = x[1] + x[2];
    y[2] = x[2] - x[1];
    y[3] = x[3] - x[1];
  }
  static inline __attribute__((always_inline)) void weight(const Vector (&x)[3], Vector (&y)[4]) {
    const Vector even = 0.5f * (x[0] + x[2]), odd = 0.5f * x[1];
    y[0] = x[0];
    y[1] = even + odd;
    y[2] = even - odd;
    y[3] = x[2];
  }
  static inline __attribute__((always_inline)) void output(const Vector (&x)[4], Vector (&y)[2]) {
    y[0] = x[0] + x[1] + x[2];
    y[1] = x[1] - x[2] + x[3];
  }
  static inline __attribute__((always_inline)) void gradient(const Vector (&x)[2], Vector (&y)[4]) {
    y[0] = x[0];
    y[1] = x[0] + x[1];
    y[2] = x[0] - x[1];
    y[3] = x[1];
  }
  static inline __attribute__((always_inline)) void weight_gradient(const Vector (&x)[4], Vector (&y)[3]) {
    const Vector even = 0.5f * (x[1] + x[2]);
    y[0] = x[0] + even;
    y[1] = 0.5f * (x[1] - x[2]);
    y[2] = even + x[3];
  }
};

struct Strided {
  static constexpr int kInputStep = 4, kInputs = 5, kOutputs = 2, kWeights = 4, kSums = 3, kProducts = 5;
  static constexpr WinogradProduct kProduct[] = {{0, 0, 0}, {1, 0, 2}, {2, 1, 0}, {3, 2, 1}, {4, 3, 2}};

  static inline __attribute__((always_inline)) void input(const Vector (&x)[5], Vector (&y)[5]) {
    y[0] = x[1];
    y[1] = x[3];
    y[2] = x[0] - x[2];
    y[3] = x[2];
    y[4] = x[4] - x[2];
  }
  static inline __attribute__((always_inline)) void weight(const Vector (&x)[3], Vector (&y)[4]) {
    y[0] = x[1];
    y[1] = x[0];
    y[2] = x[0] + x[2];
    y[3] = x[2];
  }
  static inline __attribute__((always_inline)) void output(const Vector (&x)[3], Vector (&y)[2]) {
    y[0] = x[0] + x[1];
    y[1] = x[1] + x[2];
  }
  static inline __attribute__((always_inline)) void gradient(const Vector (&x)[2], Vector (&y)[3]) {
    y[0] = x[0];
    y[1] = x[0] + x[1];
    y[2] = x[1];
  }
  static inline __attribute__((always_inline)) void weight_gradient(const Vector (&x)[4], Vector (&y)[3]) {
    y[0] = x[1] + x[2];
    y[1] = x[0];
    y[2] = x[2] + x[3];
  }
};

// Reads gradients of outputs as inputs, and the kernel backward.
struct Transposed {
  static constexpr int kInputStep = 2, kInputs = 4, kOutputs = 4, kWeights = 4, kSums = 5, kProducts = 5;
  static constexpr WinogradProduct kProduct[] = {{0, 0, 0}, {1, 0, 1}, {2, 1, 2}, {1, 2, 3}, {3, 3, 4}};

  static inline __attribute__((always_inline)) void input(const Vector (&x)[3], Vector (&y)[4]) {
    y[0] = x[0];
    y[1] = x[1];
    y[2] = x[0] - x[1];
    y[3] = x[2] - x[1];
  }
  static inline __attribute__((always_inline)) void weight(const Vector (&x)[3], Vector (&y)[4]) {
    Strided::weight(x, y);
  }
  static inline __attribute__((always_inline)) void output(const Vector (&x)[5], Vector (&y)[4]) {
    y[0] = x[0];
    y[1] = x[2] + x[3];
    y[2] = x[1];
    y[3] = x[3] + x[4];
  }
};

// A two-dimensional transform of From x From vectors at from[i * row + j * column] to To x To vectors at
// to[i * to_row + j * to_column].
template <int From, int To, void (*Line)(const Vector (&)[From], Vector (&)[To])>
inline __attribute__((always_inline)) void transform(const float* from, int64_t row, int64_t column, float* to,
                                                     int64_t to_row, int64_t to_column) {
  Vector half[To][From];
#pragma GCC unroll 8
  for (int j = 0; j < From; ++j) {
    Vector x[From], y[To];
#pragma GCC unroll 8
    for (int i = 0; i < From; ++i) x[i] = load(from + i * row + j * column);
    Line(x, y);
#pragma GCC unroll 8
    for (int i = 0; i < To; ++i) half[i][j] = y[i];
  }
#pragma GCC unroll 8
  for (int i = 0; i < To; ++i) {
    Vector y[To];
    Line(half[i], y);
#pragma GCC unroll 8
    for (int j = 0; j < To; ++j) save(to + i * to_row + j * to_column, y[j]);
  }
}

template <typename Kind, int Window>
void input_tiles(const float* window, int64_t row, int64_t tiles, float* to, int64_t next, int64_t point) {
  constexpr int kInputs = Kind::kInputs;
  for (int64_t t = 0; t < tiles; ++t, window += Kind::kInputStep * PROFL_LANES, to += next) {
    transform<Window, kInputs, Kind::input>(window, row, PROFL_LANES, to, kInputs * point, point);
  }
}

template <typename Kind>
void output_tiles(const float* from, int64_t next, int64_t point, int64_t tiles, float* window, int64_t row) {
  constexpr int kOutputs = Kind::kOutputs, kSums = Kind::kSums;
  for (int64_t t = 0; t < tiles; ++t, window += kOutputs * PROFL_LANES, from += next) {
    transform<kSums, kOutputs, Kind::output>(from, kSums * point, point, window, row, PROFL_LANES);
  }
}

template <typename Kind>
void weight_points(const float* from, int64_t row, int64_t column, float* to, int64_t point) {
  transform<3, Kind::kWeights, Kind::weight>(from, row, column, to, Kind::kWeights * point, point);
}

template <typename Kind>
void gradient_tiles(const float* window, int64_t row, int64_t tiles, float* to, int64_t next, int64_t point) {
  constexpr int kOutputs = Kind::kOutputs, kSums = Kind::kSums;
  for (int64_t t = 0; t < tiles; ++t, window += kOutputs * PROFL_LANES, to += next) {
    transform<kOutputs, kSums, Kind::gradient>(window, row, PROFL_LANES, to, kSums * point, point);
  }
}

template <typename Kind>
void weight_gradient_taps(const float* from, int64_t point, float* to) {
  constexpr int kWeights = Kind::kWeights;
  transform<kWeights, 3, Kind::weight_gradient>(from, kWeights * point, point, to, 3 * PROFL_LANES, PROFL_LANES);
}

// The products of both directions: those of one for each of the other.
template <typename Kind>
struct Products {
  WinogradProduct all[Kind::kProducts * Kind::kProducts] = {};

  constexpr Products() {
    for (int i = 0; i < Kind::kProducts; ++i) {
      for (int j = 0; j < Kind::kProducts; ++j) {
        const WinogradProduct &down = Kind::kProduct[i], &across = Kind::kProduct[j];
        WinogradProduct& both = all[i * Kind::kProducts + j];
        both.input = down.input * Kind::kInputs + across.input;
        both.weight = down.weight * Kind::kWeights + across.weight;
        both.sum = down.sum * Kind::kSums + across.sum;
      }
    }
  }
};

template <typename Kind>
constexpr Products<Kind> kProductsOf;

template <typename Kind, int Window>
constexpr WinogradKernels kernels_of() {
  WinogradKernels k{};
  k.input_step = Kind::kInputStep;
  k.input_halo = Window - Kind::kInputStep;
  k.output_step = Kind::kOutputs;
  k.inputs = Kind::kInputs * Kind::kInputs;
  k.weights = Kind::kWeights * Kind::kWeights;
  k.sums = Kind::kSums * Kind::kSums;
  k.product_count = Kind::kProducts * Kind::kProducts;
  k.products = kProductsOf<Kind>.all;
  k.input = input_tiles<Kind, Window>;
  k.output = output_tiles<Kind>;
  k.weight = weight_points<Kind>;
  return k;
}

template <typename Kind, int Window>
constexpr WinogradKernels with_gradient() {
  WinogradKernels k = kernels_of<Kind, Window>();
  k.gradient = gradient_tiles<Kind>;
  k.weight_gradient = weight_gradient_taps<Kind>;
  return k;
}

constexpr WinogradKinds kWinograd = {with_gradient<Four, 6>(), with_gradient<Two, 4>(), with_gradient<Strided, 5>(),
                                     kernels_of<Transposed, 3>()};

}  // namespace
}  // namespace profl
