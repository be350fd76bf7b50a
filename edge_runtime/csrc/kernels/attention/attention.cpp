// Scaled dot-product attention that never holds the probabilities of all tokens: they exist for a tile of queries and
// keys in the workspace, and the backward pass computes them again from the saved logarithm of each row's sum (Dao et
// al., FlashAttention, 2022).
//
// Queries, keys and values may be views of one tensor, such as the fused projection they came from: each has an offset
// and strides for batch, head and token; its last dimension is dense.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/common/kernels.h"
#include "kernels/common/row_sums.h"
#include "kernels/elementwise/dropout_mask.h"
#include "kernels/matrix/gemm.h"
#include "threads/thread_pool.h"

namespace profl {
namespace {

constexpr int64_t kQueries = 96, kKeys = 128;  // of one tile
constexpr int64_t kMaxWidth = 512;             // of a head's values
constexpr size_t kTile = kQueries * kKeys;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

static_assert(kQueries % kTileMultiple == 0 && kKeys % kTileMultiple == 0);
static_assert(kGemmWorkspaceBytes + (2 * kTile + kQueries * kMaxWidth + 2 * kQueries) * sizeof(float) <=
              kWorkspaceBytesPerThread);

struct View {
  int64_t offset, batch, head, token;
  View(const Arguments& a, size_t at)
      : offset(a.pair(at, 0)), batch(a.pair(at, 1)), head(a.pair(at, 2)), token(a.pair(at, 3)) {}
  int64_t at(int64_t n, int64_t h) const { return offset + n * batch + h * head; }
};

// The arguments that forward and backward share, beginning at `at`: dims, views of query, key, value, mask and output,
// scale, causal, dropout probability, layer.
struct Problem {
  int64_t batch, heads, queries, keys, width, value_width;
  View query, key, value, mask_view, out;
  float scale;
  bool causal;
  float dropout;
  DropoutMask drop;
  const float* mask;

  Problem(const Arguments& a, size_t at, size_t mask_at, size_t random_at)
      : batch(a.pair(at, 0)),
        heads(a.pair(at, 1)),
        queries(a.pair(at, 2)),
        keys(a.pair(at, 3)),
        width(a.pair(at, 4)),
        value_width(a.pair(at, 5)),
        query(a, at + 1),
        key(a, at + 2),
        value(a, at + 3),
        mask_view(a, at + 4),
        out(a, at + 5),
        scale(a.number(at + 6)),
        causal(a.flag(at + 7)),
        dropout(a.absent(random_at) ? 0.0f : a.number(at + 8)),
        drop(random(a, random_at), a.integer(at + 9), dropout),
        mask(a.read(mask_at)) {}

  static const int64_t* random(const Arguments& a, size_t at) {
    static constexpr int64_t kNone[2] = {};
    return a.absent(at) ? kNone : a.tensor(at).const_data_ptr<int64_t>();
  }

  const float* mask_row(int64_t n, int64_t h, int64_t i) const {
    return mask == nullptr ? nullptr : mask + mask_view.at(n, h) + i * mask_view.token;
  }

  // Dropout counts the probabilities [batch, heads, queries, keys] in order.
  uint32_t element(int64_t n, int64_t h, int64_t i, int64_t j) const {
    return static_cast<uint32_t>(((n * heads + h) * queries + i) * keys + j);
  }

  // Keys [0, result) of row i are not hidden by causality.
  int64_t visible(int64_t i) const { return causal ? std::min(keys, i + 1) : keys; }
};

// Fails the context for values whose rows the workspace does not hold; the exporter never writes such a program.
bool supported(Context& context, const Problem& p) {
  if (p.value_width <= kMaxWidth) return true;
  context.fail(Error::NotSupported);
  return false;
}

Gemm product(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb, float* c,
             int64_t ldc) {
  Gemm g{};
  g.m = m;
  g.n = n;
  g.k = k;
  g.a = a;
  g.lda = lda;
  g.b = b;
  g.ldb = ldb;
  g.c = c;
  g.ldc = ldc;
  return g;
}

// Scores to what the softmax sees; those of hidden keys become minus infinity.
PROFL_WIDE_CLONES void finish_scores(float* scores, int64_t count, int64_t visible, float scale, const float* mask) {
  if (mask == nullptr) {
    for (int64_t j = 0; j < count; ++j) scores[j] *= scale;
  } else {
#pragma GCC ivdep
    for (int64_t j = 0; j < count; ++j) scores[j] = scores[j] * scale + mask[j];
  }
  for (int64_t j = std::max<int64_t>(0, visible); j < count; ++j) scores[j] = -kInfinity;
}

// scores[j] = exp(scores[j] - shift); returns their sum.
PROFL_WIDE_CLONES double exponentials(float* scores, int64_t count, float shift) {
  for (int64_t j = 0; j < count; ++j) scores[j] = exponential_to_zero(scores[j] - shift);
  return row_sum(count, [scores](int64_t j) { return scores[j]; });
}

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

struct Scratch {
  float *gemm, *scores, *grads, *rows, *maxima, *sums;
  explicit Scratch(float* workspace)
      : gemm(workspace),
        scores(workspace + kGemmWorkspaceBytes / sizeof(float)),
        grads(scores + kTile),
        rows(grads + kTile),
        maxima(rows + kQueries * kMaxWidth),
        sums(maxima + kQueries) {}
};

// One tile of keys joins the rows' running maxima, sums and weighted values.
void join_tile(const Problem& p, const Scratch& s, int64_t n, int64_t h, int64_t i0, int64_t rows, int64_t j0,
               int64_t columns) {
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

void attend(const Problem& p, const float* query, const float* key, const float* value, float* out, float* log_sums,
            int64_t n, int64_t h, int64_t i0, float* workspace) {
  const Scratch s(workspace);
  const int64_t rows = std::min(kQueries, p.queries - i0);
  std::fill_n(s.maxima, rows, -kInfinity);
  std::fill_n(s.sums, rows, 0.0f);
  std::fill_n(s.rows, rows * p.value_width, 0.0f);
  for (int64_t j0 = 0; j0 < p.visible(i0 + rows - 1); j0 += kKeys) {
    const int64_t columns = std::min(kKeys, p.keys - j0);
    Gemm scores = product(rows, columns, p.width, query + p.query.at(n, h) + i0 * p.query.token, p.query.token,
                          key + p.key.at(n, h) + j0 * p.key.token, p.key.token, s.scores, kKeys);
    scores.transpose_b = scores.spill = true;
    gemm(scores, s.gemm);
    join_tile(p, s, n, h, i0, rows, j0, columns);
    Gemm weighted = product(rows, p.value_width, columns, s.scores, kKeys,
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

struct Gradients {
  const float *out_gradient, *query, *key, *value, *out, *log_sums;
  float *to_query, *to_key, *to_value;
};

// Probabilities and gradients of the scores of one tile, into s.scores (dropped) and s.grads.
void tile_gradients(const Problem& p, const Gradients& g, const Scratch& s, int64_t n, int64_t h, int64_t i0,
                    int64_t rows, int64_t j0, int64_t columns) {
  Gemm scores = product(rows, columns, p.width, g.query + p.query.at(n, h) + i0 * p.query.token, p.query.token,
                        g.key + p.key.at(n, h) + j0 * p.key.token, p.key.token, s.scores, kKeys);
  scores.transpose_b = scores.spill = true;
  gemm(scores, s.gemm);
  Gemm incoming = product(rows, columns, p.value_width, g.out_gradient + p.out.at(n, h) + i0 * p.out.token, p.out.token,
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
void head_gradients(const Problem& p, const Gradients& g, int64_t n, int64_t h, float* workspace) {
  const Scratch s(workspace);
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
      Gemm to_value = product(columns, p.value_width, rows, s.scores, kKeys, g.out_gradient + from, p.out.token,
                              g.to_value + value_at, p.value.token);
      to_value.transpose_a = true;
      to_value.accumulate = i0 > 0;
      gemm(to_value, s.gemm);
      Gemm to_query = product(rows, p.width, columns, s.grads, kKeys, g.key + key_at, p.key.token,
                              g.to_query + query_at, p.query.token);
      to_query.accumulate = j0 > 0;
      gemm(to_query, s.gemm);
      Gemm to_key = product(columns, p.width, rows, s.grads, kKeys, g.query + query_at, p.query.token,
                            g.to_key + key_at, p.key.token);
      to_key.transpose_a = true;
      to_key.accumulate = i0 > 0;
      gemm(to_key, s.gemm);
    }
  }
}

}  // namespace

void attention(Context& context, Stack stack) {
  const Arguments a(stack);
  const Problem p(a, 5, 3, 4);
  if (!supported(context, p)) return;
  const int64_t tiles = (p.queries + kQueries - 1) / kQueries;
  parallel_for(p.batch * p.heads * tiles, [&](int64_t task, float* workspace) {
    const int64_t head = task / tiles;
    attend(p, a.read(0), a.read(1), a.read(2), a.write(15), a.write(16), head / p.heads, head % p.heads,
           task % tiles * kQueries, workspace);
  });
}

void attention_backward(Context& context, Stack stack) {
  const Arguments a(stack);
  const Problem p(a, 8, 4, 5);
  if (!supported(context, p)) return;
  const Gradients g{a.read(0), a.read(1),   a.read(2),   a.read(3),  a.read(6),
                    a.read(7), a.write(18), a.write(19), a.write(20)};
  parallel_for(p.batch * p.heads, [&](int64_t head, float* workspace) {
    head_gradients(p, g, head / p.heads, head % p.heads, workspace);
  });
}

// Products of matrices, one for every entry of the leading dimensions: c = a b, either turned where its flag says so.
void matmul(Context&, Stack stack) {
  const Arguments a(stack);
  const Tensor &left = a.tensor(0), &out = a.tensor(4);
  const bool turn_a = a.flag(2), turn_b = a.flag(3);
  const int64_t m = out.size(out.dim() - 2), n = out.size(out.dim() - 1);
  const int64_t k = left.size(left.dim() - (turn_a ? 2 : 1));
  const int64_t together = 64, tiles = (m + together - 1) / together;
  parallel_for(out.numel() / (m * n) * tiles, [&](int64_t task, float* workspace) {
    const int64_t batch = task / tiles, row = task % tiles * together;
    Gemm g = product(std::min(together, m - row), n, k, a.read(0) + batch * m * k + (turn_a ? row : row * k),
                     turn_a ? m : k, a.read(1) + batch * k * n, turn_b ? k : n, a.write(4) + (batch * m + row) * n, n);
    g.transpose_a = turn_a;
    g.transpose_b = turn_b;
    gemm(g, workspace);
  });
}

}  // namespace profl
