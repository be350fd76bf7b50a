// LayerNorm over the last dimensions: forward, again from the saved statistics, and backward.
#include <algorithm>
#include <cmath>

#include "kernels/common/kernels.h"
#include "kernels/common/pieces.h"
#include "kernels/common/row_sums.h"

namespace profl {
namespace {

constexpr int64_t kColumns = 128;  // columns of one task of the sums over rows

struct Rows {
  int64_t count, width;
  // `statistic` has one element for each row of `x`.
  Rows(const Tensor& x, const Tensor& statistic) : count(statistic.numel()), width(x.numel() / statistic.numel()) {}
};

PROFL_CLONES void statistics_row(const float* x, int64_t width, float eps, float* mean, float* rstd) {
  const double average = row_sum(width, [x](int64_t i) { return x[i]; }) / static_cast<double>(width);
  const float centre = static_cast<float>(average);
  const double squares = row_sum(width, [x, centre](int64_t i) { return (x[i] - centre) * (x[i] - centre); });
  *mean = centre;
  *rstd = static_cast<float>(1.0 / std::sqrt(squares / static_cast<double>(width) + eps));
}

// y may be x itself.
PROFL_CLONES void normalise_row(const float* x, int64_t width, float mean, float rstd, const float* weight,
                                const float* bias, float* y) {
#pragma GCC ivdep
  for (int64_t i = 0; i < width; ++i) {
    float value = (x[i] - mean) * rstd;
    if (weight != nullptr) value *= weight[i];
    if (bias != nullptr) value += bias[i];
    y[i] = value;
  }
}

// to_x = rstd (g w - mean(g w) - n mean(g w n)), n the normalised x; to_x may be the gradient or x.
PROFL_CLONES void backward_row(const float* gradient, const float* x, int64_t width, float mean, float rstd,
                               const float* weight, float* to_x) {
  const auto scaled = [=](int64_t i) { return weight == nullptr ? gradient[i] : gradient[i] * weight[i]; };
  const float offset = static_cast<float>(row_sum(width, scaled) / static_cast<double>(width));
  const double product = row_sum(width, [=](int64_t i) { return scaled(i) * ((x[i] - mean) * rstd); });
  const float slope = static_cast<float>(product / static_cast<double>(width));
#pragma GCC ivdep
  for (int64_t i = 0; i < width; ++i) to_x[i] = rstd * (scaled(i) - offset - (x[i] - mean) * rstd * slope);
}

PROFL_CLONES void parameter_sums(const float* gradient, const float* x, const float* mean, const float* rstd,
                                 int64_t rows, int64_t width, int64_t columns, double* to_weight, double* to_bias) {
  for (int64_t row = 0; row < rows; ++row, gradient += width, x += width) {
    const float centre = mean[row], scale = rstd[row];
    for (int64_t i = 0; i < columns; ++i) {
      to_weight[i] += gradient[i] * ((x[i] - centre) * scale);
      to_bias[i] += gradient[i];
    }
  }
}

void parameter_gradients(const Rows& rows, const float* gradient, const float* x, const float* mean, const float* rstd,
                         float* to_weight, float* to_bias) {
  if (to_weight == nullptr && to_bias == nullptr) return;
  parallel_for((rows.width + kColumns - 1) / kColumns, [&](int64_t task, float*) {
    const int64_t first = task * kColumns, columns = std::min(kColumns, rows.width - first);
    double weight_sums[kColumns] = {}, bias_sums[kColumns] = {};
    parameter_sums(gradient + first, x + first, mean, rstd, rows.count, rows.width, columns, weight_sums, bias_sums);
    if (to_weight != nullptr) std::copy_n(weight_sums, columns, to_weight + first);
    if (to_bias != nullptr) std::copy_n(bias_sums, columns, to_bias + first);
  });
}

template <typename Body>
void for_rows(const Rows& rows, const Body& body) {
  row_pieces(rows.count, rows.width, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) body(row, row * rows.width);
  });
}

}  // namespace

void layer_norm(Context&, Stack stack) {
  const Arguments a(stack);
  const Rows rows(a.tensor(0), a.tensor(5));
  const float eps = a.number(3);
  for_rows(rows, [&](int64_t row, int64_t at) {
    float* mean = a.write(5) + row;
    float* rstd = a.write(6) + row;
    statistics_row(a.read(0) + at, rows.width, eps, mean, rstd);
    normalise_row(a.read(0) + at, rows.width, *mean, *rstd, a.read(1), a.read(2), a.write(4) + at);
  });
}

void layer_norm_apply(Context&, Stack stack) {
  const Arguments a(stack);
  const Rows rows(a.tensor(0), a.tensor(3));
  for_rows(rows, [&](int64_t row, int64_t at) {
    normalise_row(a.read(0) + at, rows.width, a.read(3)[row], a.read(4)[row], a.read(1), a.read(2), a.write(5) + at);
  });
}

void layer_norm_backward(Context&, Stack stack) {
  const Arguments a(stack);
  const Rows rows(a.tensor(0), a.tensor(3));
  // Sums first: the gradient of x may overwrite what they read.
  parameter_gradients(rows, a.read(0), a.read(1), a.read(3), a.read(4), a.write(6), a.write(7));
  if (a.absent(5)) return;
  for_rows(rows, [&](int64_t row, int64_t at) {
    backward_row(a.read(0) + at, a.read(1) + at, rows.width, a.read(3)[row], a.read(4)[row], a.read(2),
                 a.write(5) + at);
  });
}

}  // namespace profl
