// An expression of up to three tensors, element by element: a short program in postfix order for a stack of blocks.
#include <cmath>

#include "kernels/common/kernels.h"
#include "kernels/common/pieces.h"
#include "kernels/common/vector_math.h"
#include "kernels/common/walk.h"
#include "operators/postfix.h"

namespace profl {
namespace {

constexpr int64_t kBlock = 256;  // elements that an instruction works on: the stack stays in the first cache

struct Source {
  const float* at;
  int64_t step;  // 0 where one element repeats
};

template <typename Compute>
PROFL_INLINE void change(float* x, int64_t count, const Compute& compute) {
  for (int64_t i = 0; i < count; ++i) x[i] = compute(x[i]);
}

template <typename Compute>
PROFL_INLINE void combine(float* x, const float* y, int64_t count, const Compute& compute) {
  for (int64_t i = 0; i < count; ++i) x[i] = compute(x[i], y[i]);
}

void load(const Source& source, int64_t first, int64_t count, float* to) {
  if (source.step == 0) {
    std::fill_n(to, count, *source.at);
  } else {
    std::copy_n(source.at + first, count, to);
  }
}

// On the two topmost blocks, whose result takes the lower one's place.
PROFL_CLONES void combine_blocks(Postfix what, float* x, const float* y, int64_t count) {
  switch (what) {
    case Postfix::add:
      return combine(x, y, count, [](float a, float b) { return a + b; });
    case Postfix::subtract:
      return combine(x, y, count, [](float a, float b) { return a - b; });
    case Postfix::multiply:
      return combine(x, y, count, [](float a, float b) { return a * b; });
    case Postfix::divide:
      return combine(x, y, count, [](float a, float b) { return a / b; });
    case Postfix::greater:
      return combine(x, y, count, [](float a, float b) { return a > b ? 1.0f : 0.0f; });
    case Postfix::equal:
      return combine(x, y, count, [](float a, float b) { return a == b ? 1.0f : 0.0f; });
    case Postfix::larger:  // a NaN stays one
      return combine(x, y, count, [](float a, float b) { return a > b || a != a ? a : b; });
    case Postfix::smaller:
      return combine(x, y, count, [](float a, float b) { return a < b || a != a ? a : b; });
    case Postfix::power:
      return combine(x, y, count, [](float a, float b) { return std::pow(a, b); });
    case Postfix::angle:
      return combine(x, y, count, [](float a, float b) { return std::atan2(a, b); });
    default:
      return;
  }
}

PROFL_CLONES void change_block(Postfix what, float* x, int64_t count) {
  switch (what) {
    case Postfix::negate:
      return change(x, count, [](float a) { return -a; });
    case Postfix::absolute:
      return change(x, count, [](float a) { return std::fabs(a); });
    case Postfix::exponential:
      return change(x, count, [](float a) { return exponential_to_zero(a); });
    case Postfix::exponential_less_one:
      return change(x, count, [](float a) { return std::expm1(a); });
    case Postfix::logarithm:
      return change(x, count, [](float a) { return std::log(a); });
    case Postfix::logarithm_of_one_more:
      return change(x, count, [](float a) { return std::log1p(a); });
    case Postfix::square_root:
      return change(x, count, [](float a) { return std::sqrt(a); });
    case Postfix::sine:
      return change(x, count, [](float a) { return std::sin(a); });
    case Postfix::cosine:
      return change(x, count, [](float a) { return std::cos(a); });
    case Postfix::tangent:
      return change(x, count, [](float a) { return std::tan(a); });
    case Postfix::arcsine:
      return change(x, count, [](float a) { return std::asin(a); });
    case Postfix::arccosine:
      return change(x, count, [](float a) { return std::acos(a); });
    case Postfix::arctangent:
      return change(x, count, [](float a) { return std::atan(a); });
    case Postfix::hyperbolic_sine:
      return change(x, count, [](float a) { return std::sinh(a); });
    case Postfix::hyperbolic_cosine:
      return change(x, count, [](float a) { return std::cosh(a); });
    case Postfix::hyperbolic_tangent:
      return change(x, count, [](float a) { return std::tanh(a); });
    case Postfix::area_sine:
      return change(x, count, [](float a) { return std::asinh(a); });
    case Postfix::area_cosine:
      return change(x, count, [](float a) { return std::acosh(a); });
    case Postfix::area_tangent:
      return change(x, count, [](float a) { return std::atanh(a); });
    case Postfix::error:
      return change(x, count, [](float a) { return std::erf(a); });
    case Postfix::error_left:
      return change(x, count, [](float a) { return std::erfc(a); });
    case Postfix::floor:
      return change(x, count, [](float a) { return std::floor(a); });
    case Postfix::round:  // to even where both are as near
      return change(x, count, [](float a) { return std::nearbyint(a); });
    default:
      return;
  }
}

// y may be one of the sources: all of a block is read before any of it is written.
template <typename Code>
void evaluate(const Code& code, const Source* sources, int64_t first, int64_t count, float* y) {
  alignas(64) float blocks[kPostfixDepth][kBlock];
  int depth = 0;
  for (const int64_t word : code) {
    const Postfix what = postfix_of(word);
    const int operands = postfix_operands(what);
    if (what == Postfix::operand) {
      load(sources[postfix_place(word)], first, count, blocks[depth]);
    } else if (what == Postfix::number) {
      std::fill_n(blocks[depth], count, float_of_bits(static_cast<uint32_t>(word >> kPostfixBits)));
    } else if (operands == 1) {
      change_block(what, blocks[depth - 1], count);
    } else if (operands == 2) {
      combine_blocks(what, blocks[depth - 2], blocks[depth - 1], count);
    } else {  // the first where it is not 0 chooses the second, else the third
      float* x = blocks[depth - 3];
      for (int64_t i = 0; i < count; ++i) x[i] = x[i] != 0.0f ? blocks[depth - 2][i] : blocks[depth - 1][i];
    }
    depth += 1 - operands;
  }
  std::copy_n(blocks[0], count, y + first);
}

}  // namespace

void expression(Context& context, Stack stack) {
  const Arguments a(stack);
  const Tensor& out = a.tensor(4);
  if (!walkable(context, out)) return;
  const auto code = stack[0]->toIntList();
  Walk walk;
  Strides strides[kMaxOperands] = {Strides(out, out.dim()), Strides(out, out.dim()), Strides(out, out.dim())};
  for (size_t k = 0; k < kMaxOperands; ++k) {
    if (!a.absent(1 + k)) strides[k] = Strides(a.tensor(1 + k), out.dim());
  }
  for (ssize_t d = 0; d < out.dim(); ++d) {
    walk.add(out.size(d), strides[0].of[d], strides[1].of[d], strides[2].of[d]);
  }
  float* y = a.write(4);
  const auto run = [&](int64_t row, int64_t first, int64_t last) {
    Source sources[kMaxOperands];
    for (int k = 0; k < kMaxOperands; ++k) {
      const float* from = a.read(1 + static_cast<size_t>(k));
      sources[k] = {from == nullptr ? nullptr : from + walk.row(row, k), walk.inner_stride(k)};
    }
    for (int64_t at = first; at < last; at += kBlock) {
      evaluate(code, sources, at, std::min(kBlock, last - at), y + row * walk.inner());
    }
  };
  if (walk.rows() == 1) {
    pieces(walk.inner(), [&](int64_t first, int64_t last) { run(0, first, last); });
    return;
  }
  row_pieces(walk.rows(), walk.inner(), [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) run(row, 0, walk.inner());
  });
}

}  // namespace profl
