// Scaled dot-product attention that never holds the probabilities of all tokens: they exist for a tile of queries and
// keys in the workspace, and the backward pass computes them again from the saved logarithm of each row's sum (Dao et
// al., FlashAttention, 2022).
#include <algorithm>
#include <cmath>

#include "kernels/attention/attention_tile.h"
#include "kernels/common/kernels.h"
#include "kernels/common/row_sums.h"

namespace profl {
namespace {

PROFL_WIDE_CLONES float largest_of(const float* scores, int64_t count) {
  return row_maximum(count, [scores](int64_t j) { return scores[j]; });
}

PROFL_WIDE_CLONES void drop_row(const DropoutMask& mask, float* row, int64_t count, uint32_t first) {
  const DropoutMask local = mask;
  for (int64_t j = 0; j < count; ++j) row[j] *= local.factor(first + static_cast<uint32_t>(j));
}

PROFL_WIDE_CLONES void scale_row(const float* row, int64_t count, float factor, float* to) {
#pragma GCC ivdep
  for (int64_t j = 0; j < count; ++j) to[j] = row[j] * factor;
}

// One tile of keys joins the rows' running maxima, sums and weighted values.
void join_tile(const AttentionProblem& p, const AttentionScratch& s, int64_t n, int64_t h, int64_t i0, int64_t rows,
               int64_t j0, int64_t columns) {
  for (int64_t r = 0; r < rows; ++r) {
    float* scores = s.scores + r * kKeys;
    const float* mask = p.mask_row(n, h, i0 + r);
    finish_scores(scores, columns, p.visible(i0 + r) - j0, p.scale, mask == nullptr ? nullptr : mask + j0);
    const float before = s.maxima[r], largest = std::max(before, largest_of(scores, columns));
    // A row that sees no key so far stays at zero: minus infinity is not subtracted from itself.
    const float shift = largest == -kInfinity ? 0.0f : largest;
    const double sum = exponentials(scores, columns, shift);
    const float correction = before == -kInfinity ? 0.0f : std::exp(before - shift);
    s.maxima[r] = largest;
    s.sums[r] = static_cast<float>(s.sums[r] * static_cast<double>(correction) + sum);
    if (j0 > 0) scale_row(s.rows + r * p.value_width, p.value_width, correction, s.rows + r * p.value_width);
    if (p.dropout > 0.0f) drop_row(p.drop, scores, columns, p.element(n, h, i0 + r, j0));
  }
}

void attend(const AttentionProblem& p, const float* query, const float* key, const float* value, float* out,
            float* log_sums, int64_t n, int64_t h, int64_t i0, float* workspace) {
  const AttentionScratch s(workspace);
  const int64_t rows = std::min(kQueries, p.queries - i0);
  std::fill_n(s.maxima, rows, -kInfinity);
  std::fill_n(s.sums, rows, 0.0f);
  std::fill_n(s.rows, rows * p.value_width, 0.0f);
  for (int64_t j0 = 0; j0 < p.visible(i0 + rows - 1); j0 += kKeys) {
    const int64_t columns = std::min(kKeys, p.keys - j0);
    Gemm scores = matrix_product(rows, columns, p.width, query + p.query.at(n, h) + i0 * p.query.token, p.query.token,
                                 key + p.key.at(n, h) + j0 * p.key.token, p.key.token, s.scores, kKeys);
    scores.transpose_b = scores.spill = true;
    gemm(scores, s.gemm);
    join_tile(p, s, n, h, i0, rows, j0, columns);
    Gemm weighted = matrix_product(rows, p.value_width, columns, s.scores, kKeys,
                                   value + p.value.at(n, h) + j0 * p.value.token, p.value.token, s.rows, p.value_width);
    weighted.accumulate = true;
    gemm(weighted, s.gemm);
  }
  for (int64_t r = 0; r < rows; ++r) {
    float* to = out + p.out.at(n, h) + (i0 + r) * p.out.token;
    const float sum = s.sums[r];
    scale_row(s.rows + r * p.value_width, p.value_width, sum > 0.0f ? 1.0f / sum : sum, to);
    if (log_sums != nullptr) {
      // For a row without any key: minus infinity less this stays minus infinity, and its probabilities zero.
      log_sums[(n * p.heads + h) * p.queries + i0 + r] = sum == 0.0f ? kInfinity : s.maxima[r] + std::log(sum);
    }
  }
}

}  // namespace

void attention(Context& context, Stack stack) {
  const Arguments a(stack);
  const AttentionProblem p(a, 5, 3, 4);
  if (!supported(context, p)) return;
  const int64_t tiles = (p.queries + kQueries - 1) / kQueries;
  parallel_for(p.batch * p.heads * tiles, [&](int64_t task, float* workspace) {
    const int64_t head = task / tiles;
    attend(p, a.read(0), a.read(1), a.read(2), a.write(15), a.write(16), head / p.heads, head % p.heads,
           task % tiles * kQueries, workspace);
  });
}

}  // namespace profl
