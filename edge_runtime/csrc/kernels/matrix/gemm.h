// Matrix products for the kernels that are no convolution: linear layers, attention.
#pragma once

#include <cstddef>
#include <cstdint>

namespace profl {

// c[i][j] = sum over k of a[i][k] * b[k][j] (+ bias[j]), or the sum added to c. All matrices are row-major; a row of
// `a` begins `lda` floats behind the one before. A transposed operand lies in memory as a[k][i] or b[j][k].
constexpr int64_t kTileMultiple = 16;

struct Gemm {
  int64_t m, n, k;
  const float* a;
  int64_t lda;
  const float* b;
  int64_t ldb;
  float* c;
  int64_t ldc;
  bool transpose_a = false, transpose_b = false, accumulate = false;
  const float* bias = nullptr;  // not together with `accumulate`
  bool spill = false;           // c has room for whole tiles: kTileMultiple rows, and columns up to the next in a row
};

// c = a b.
inline Gemm matrix_product(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb,
                           float* c, int64_t ldc) {
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

// Bytes of the workspace that `gemm` uses; a caller within `parallel_for` has the rest for itself.
constexpr size_t kGemmWorkspaceBytes = size_t{512} << 10;

// On the calling thread. `workspace` has kGemmWorkspaceBytes and is 64-byte aligned. An element of c is the same
// whatever part of a product it is computed in.
void gemm(const Gemm& product, float* workspace);

// On all threads; not from within `parallel_for`.
void gemm_parallel(const Gemm& product);

}  // namespace profl
