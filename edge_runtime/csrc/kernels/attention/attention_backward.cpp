// The backward pass of attention, which computes the probabilities of a tile again.
#include <algorithm>

#include "kernels/attention/attention_tile.h"
#include "kernels/common/kernels.h"
#include "kernels/common/row_sums.h"

namespace profl {
namespace {

PROFL_WIDE_CLONES float dot(const float* a, const float* b, int64_t count) {
  return static_cast<float>(row_sum(count, [a, b](int64_t i) { return a[i] * b[i]; }));
}

// grads[j] = p[j] (grads[j] - offset) scale, with dropout applied to what came in and to p, which leaves as what was
// multiplied with the values.
PROFL_WIDE_CLONES void score_gradients(float* p, float* grads, int64_t count, float offset, float scale,
                                       const DropoutMask* mask, uint32_t first) {
  if (mask == nullptr) {
#pragma GCC ivdep
    for (int64_t j = 0; j < count; ++j) grads[j] = p[j] * (grads[j] - offset) * scale;
    return;
  }
  const DropoutMask local = *mask;
#pragma GCC ivdep
  for (int64_t j = 0; j < count; ++j) {
    const float factor = local.factor(first + static_cast<uint32_t>(j)), probability = p[j];
    grads[j] = probability * (grads[j] * factor - offset) * scale;
    p[j] = probability * factor;
  }
}

struct Gradients {
  const float *out_gradient, *query, *key, *value, *out, *log_sums;
  float *to_query, *to_key, *to_value;
};

// Probabilities and gradients of the scores of one tile, into s.scores (dropped) and s.grads.
void tile_gradients(const AttentionProblem& p, const Gradients& g, const AttentionScratch& s, int64_t n, int64_t h,
                    int64_t i0, int64_t rows, int64_t j0, int64_t columns) {
  Gemm scores = matrix_product(rows, columns, p.width, g.query + p.query.at(n, h) + i0 * p.query.token, p.query.token,
                               g.key + p.key.at(n, h) + j0 * p.key.token, p.key.token, s.scores, kKeys);
  scores.transpose_b = scores.spill = true;
  gemm(scores, s.gemm);
  Gemm incoming =
      matrix_product(rows, columns, p.value_width, g.out_gradient + p.out.at(n, h) + i0 * p.out.token, p.out.token,
                     g.value + p.value.at(n, h) + j0 * p.value.token, p.value.token, s.grads, kKeys);
  incoming.transpose_b = incoming.spill = true;
  gemm(incoming, s.gemm);
  for (int64_t r = 0; r < rows; ++r) {
    float* row = s.scores + r * kKeys;
    const float* mask = p.mask_row(n, h, i0 + r);
    finish_scores(row, columns, p.visible(i0 + r) - j0, p.scale, mask == nullptr ? nullptr : mask + j0);
    exponentials(row, columns, g.log_sums[(n * p.heads + h) * p.queries + i0 + r]);
    score_gradients(row, s.grads + r * kKeys, columns, s.sums[r], p.scale, p.dropout > 0.0f ? &p.drop : nullptr,
                    p.element(n, h, i0 + r, j0));
  }
}

// All gradients of one head of one example.
void head_gradients(const AttentionProblem& p, const Gradients& g, int64_t n, int64_t h, float* workspace) {
  const AttentionScratch s(workspace);
  for (int64_t i0 = 0; i0 < p.queries; i0 += kQueries) {
    const int64_t rows = std::min(kQueries, p.queries - i0);
    const int64_t from = p.out.at(n, h) + i0 * p.out.token, query_at = p.query.at(n, h) + i0 * p.query.token;
    for (int64_t r = 0; r < rows; ++r) {
      s.sums[r] = dot(g.out_gradient + from + r * p.out.token, g.out + from + r * p.out.token, p.value_width);
    }
    for (int64_t j0 = 0; j0 < p.keys; j0 += kKeys) {
      const int64_t columns = std::min(kKeys, p.keys - j0);
      const int64_t key_at = p.key.at(n, h) + j0 * p.key.token, value_at = p.value.at(n, h) + j0 * p.value.token;
      tile_gradients(p, g, s, n, h, i0, rows, j0, columns);
      Gemm to_value = matrix_product(columns, p.value_width, rows, s.scores, kKeys, g.out_gradient + from, p.out.token,
                                     g.to_value + value_at, p.value.token);
      to_value.transpose_a = true;
      to_value.accumulate = i0 > 0;
      gemm(to_value, s.gemm);
      Gemm to_query = matrix_product(rows, p.width, columns, s.grads, kKeys, g.key + key_at, p.key.token,
                                     g.to_query + query_at, p.query.token);
      to_query.accumulate = j0 > 0;
      gemm(to_query, s.gemm);
      Gemm to_key = matrix_product(columns, p.width, rows, s.grads, kKeys, g.query + query_at, p.query.token,
                                   g.to_key + key_at, p.key.token);
      to_key.transpose_a = true;
      to_key.accumulate = i0 > 0;
      gemm(to_key, s.gemm);
    }
  }
}

}  // namespace

void attention_backward(Context& context, Stack stack) {
  const Arguments a(stack);
  const AttentionProblem p(a, 8, 4, 5);
  if (!supported(context, p)) return;
  const Gradients g{a.read(0), a.read(1),   a.read(2),   a.read(3),  a.read(6),
                    a.read(7), a.write(18), a.write(19), a.write(20)};
  parallel_for(p.batch * p.heads, [&](int64_t head, float* workspace) {
    head_gradients(p, g, head / p.heads, head % p.heads, workspace);
  });
}

}  // namespace profl
