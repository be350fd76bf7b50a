// What attention's forward and backward pass have in common: the arguments, and the work on a tile of queries and keys.
//
// Queries, keys and values may be views of one tensor, such as the fused projection they came from: each has an offset
// and strides for batch, head and token; its last dimension is dense.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "kernels/common/stack.h"
#include "kernels/elementwise/dropout_mask.h"
#include "kernels/matrix/gemm.h"
#include "threads/thread_pool.h"

namespace profl {

constexpr int64_t kQueries = 96, kKeys = 128;  // of one tile
constexpr int64_t kMaxWidth = 512;             // of a head's values
constexpr size_t kTile = kQueries * kKeys;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

static_assert(kQueries % kTileMultiple == 0 && kKeys % kTileMultiple == 0);
static_assert(kGemmWorkspaceBytes + (2 * kTile + kQueries * kMaxWidth + 2 * kQueries) * sizeof(float) <=
              kWorkspaceBytesPerThread);

struct TokenView {
  int64_t offset, batch, head, token;
  TokenView(const Arguments& a, size_t at)
      : offset(a.pair(at, 0)), batch(a.pair(at, 1)), head(a.pair(at, 2)), token(a.pair(at, 3)) {}
  int64_t at(int64_t n, int64_t h) const { return offset + n * batch + h * head; }
};

// The arguments that forward and backward share, beginning at `at`: dims, views of query, key, value, mask and output,
// scale, causal, dropout probability, layer.
struct AttentionProblem {
  int64_t batch, heads, queries, keys, width, value_width;
  TokenView query, key, value, mask_view, out;
  float scale;
  bool causal;
  float dropout;
  DropoutMask drop;
  const float* mask;

  AttentionProblem(const Arguments& a, size_t at, size_t mask_at, size_t random_at)
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
bool supported(Context& context, const AttentionProblem& p);

// Scores to what the softmax sees; those of hidden keys become minus infinity.
void finish_scores(float* scores, int64_t count, int64_t visible, float scale, const float* mask);

// scores[j] = exp(scores[j] - shift); returns their sum.
double exponentials(float* scores, int64_t count, float shift);

struct AttentionScratch {
  float *gemm, *scores, *grads, *rows, *maxima, *sums;
  explicit AttentionScratch(float* workspace)
      : gemm(workspace),
        scores(workspace + kGemmWorkspaceBytes / sizeof(float)),
        grads(scores + kTile),
        rows(grads + kTile),
        maxima(rows + kQueries * kMaxWidth),
        sums(maxima + kQueries) {}
};

}  // namespace profl
