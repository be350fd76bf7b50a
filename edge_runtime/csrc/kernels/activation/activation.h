// Activations as functions of one float, for kernels of their own and for the epilogues of others. Everything is
// branch-free arithmetic that the compiler turns into vectors; a NaN goes through.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/common/inline.h"

namespace profl {

// The numbers are part of the programs' format (edge_runtime/export/operators/activation.py); append only.
enum class Activation : int64_t {
  none = 0,
  relu = 1,
  relu6 = 2,
  leaky_relu = 3,  // parameter: slope below zero
  silu = 4,
  hardswish = 5,
  hardsigmoid = 6,
  sigmoid = 7,
  tanh = 8,
  mish = 9,
  softplus = 10,  // parameter: beta
  elu = 11,       // parameter: the limit below zero, without its sign
  absolute = 12,
  exponential = 13,
  logarithm = 14,
  square_root = 15,  // parameter: not 0 where the gradient at 0 is 0 instead of infinite
  inverse_root = 16,
  reciprocal = 17,
  at_least = 18,  // parameter: the limit
  at_most = 19,   // parameter: the limit
};

// e^x as power * (1 + rest) by Cephes' expf: relative error below 2e-7 from -87 to 88.3, above which the power of two
// is infinite.
struct Exponential {
  float power, rest;
};

PROFL_INLINE Exponential split_exponential(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 89.0f ? 89.0f : x;
  const float scaled = x * 1.44269504088896341f;
  const int32_t n = static_cast<int32_t>(scaled + (scaled < 0.0f ? -0.5f : 0.5f));
  const float whole = static_cast<float>(n);
  const float r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const uint32_t bits = static_cast<uint32_t>(n + 127) << 23;
  Exponential e;
  std::memcpy(&e.power, &bits, sizeof(e.power));
  e.rest = p * r * r + r;
  return e;
}

PROFL_INLINE float exponential(float x) {
  const Exponential e = split_exponential(x);
  return (e.rest + 1.0f) * e.power;
}

// e^x - 1 for x at most 0, with all its digits near 0.
PROFL_INLINE float exponential_minus_one(float x) {
  const Exponential e = split_exponential(x);
  return e.rest * e.power + (e.power - 1.0f);
}

// log(1 + z) for z from 0 to 1: twice the inverse hyperbolic tangent of z / (2 + z), which is at most 1/3.
PROFL_INLINE float logarithm_of_one_and(float z) {
  const float s = z / (2.0f + z), square = s * s;
  float p = 1.0f / 15.0f;
  p = p * square + 1.0f / 13.0f;
  p = p * square + 1.0f / 11.0f;
  p = p * square + 1.0f / 9.0f;
  p = p * square + 1.0f / 7.0f;
  p = p * square + 1.0f / 5.0f;
  p = p * square + 1.0f / 3.0f;
  return 2.0f * s * (p * square + 1.0f);
}

PROFL_INLINE float logistic(float x) { return 1.0f / (1.0f + exponential(-x)); }

// Cephes' tanhf: a polynomial near zero, where the quotient would lose digits. Both are computed and weighted, because
// a choice between them would keep the compiler from vectors.
PROFL_INLINE float hyperbolic_tangent(float x) {
  constexpr float kNear = 0.390625f;  // of the square
  x = x < -10.0f ? -10.0f : x;
  x = x > 10.0f ? 10.0f : x;
  const float square = x * x;
  const float z = square < kNear ? square : kNear;
  float p = -5.70498872745e-3f;
  p = p * z + 2.06390887954e-2f;
  p = p * z - 5.37397155531e-2f;
  p = p * z + 1.33314422036e-1f;
  p = p * z - 3.33332819422e-1f;
  const float near = p * z * x + x, far = 1.0f - 2.0f / (exponential(2.0f * x) + 1.0f);
  const float weight = square < kNear ? 1.0f : 0.0f;
  return weight * near + (1.0f - weight) * far;
}

// tanh(log(1 + e^x)), by which Mish weights x, and its slope: with n = e^x it is n (n + 2) / (n (n + 2) + 2).
struct MishGate {
  float value, slope;
};

PROFL_INLINE MishGate mish_gate(float x) {
  const float n = exponential(x > 20.0f ? 20.0f : x), w = n * (n + 2.0f), below = 1.0f / (w + 2.0f);
  return {w * below, 4.0f * n * (n + 1.0f) * below * below};
}

template <Activation kind>
PROFL_INLINE float activate(float x, float parameter) {
  if constexpr (kind == Activation::relu) return x < 0.0f ? 0.0f : x;
  if constexpr (kind == Activation::relu6) return x < 0.0f ? 0.0f : x > 6.0f ? 6.0f : x;
  if constexpr (kind == Activation::leaky_relu) return x > 0.0f ? x : x * parameter;
  if constexpr (kind == Activation::silu) return x * logistic(x);
  if constexpr (kind == Activation::hardsigmoid || kind == Activation::hardswish) {
    float gate = x * (1.0f / 6.0f) + 0.5f;
    gate = gate < 0.0f ? 0.0f : gate > 1.0f ? 1.0f : gate;
    return kind == Activation::hardswish ? x * gate : gate;
  }
  if constexpr (kind == Activation::sigmoid) return logistic(x);
  if constexpr (kind == Activation::tanh) return hyperbolic_tangent(x);
  if constexpr (kind == Activation::mish) return (x < -87.0f ? -87.0f : x) * mish_gate(x).value;
  if constexpr (kind == Activation::softplus) {
    const float scaled = x * parameter, size = scaled < 0.0f ? scaled : -scaled;
    return (scaled < 0.0f ? 0.0f : x) + logarithm_of_one_and(exponential(size)) / parameter;
  }
  if constexpr (kind == Activation::elu) {
    const float below = parameter * exponential_minus_one(x > 0.0f ? 0.0f : x);
    return x > 0.0f ? x : below;
  }
  if constexpr (kind == Activation::absolute) return std::fabs(x);
  if constexpr (kind == Activation::exponential) return exponential(x);
  if constexpr (kind == Activation::logarithm) return std::log(x);
  if constexpr (kind == Activation::square_root) return std::sqrt(x);
  if constexpr (kind == Activation::inverse_root) return 1.0f / std::sqrt(x);
  if constexpr (kind == Activation::reciprocal) return 1.0f / x;
  if constexpr (kind == Activation::at_least) return x < parameter ? parameter : x;
  if constexpr (kind == Activation::at_most) return x > parameter ? parameter : x;
  return x;
}

// The derivative at x, with PyTorch's choice where there is none.
template <Activation kind>
PROFL_INLINE float derivative(float x, float parameter) {
  if constexpr (kind == Activation::relu) return x > 0.0f ? 1.0f : 0.0f;
  if constexpr (kind == Activation::relu6) return x > 0.0f && x < 6.0f ? 1.0f : 0.0f;
  if constexpr (kind == Activation::leaky_relu) return x > 0.0f ? 1.0f : parameter;
  if constexpr (kind == Activation::silu) {
    const float gate = logistic(x);
    return gate * (1.0f + x * (1.0f - gate));
  }
  if constexpr (kind == Activation::hardswish) {
    const float inside = x * (1.0f / 3.0f) + 0.5f;
    return x <= -3.0f ? 0.0f : x < 3.0f ? inside : 1.0f;
  }
  if constexpr (kind == Activation::hardsigmoid) return x > -3.0f && x < 3.0f ? 1.0f / 6.0f : 0.0f;
  if constexpr (kind == Activation::sigmoid) {
    const float y = logistic(x);
    return y * (1.0f - y);
  }
  if constexpr (kind == Activation::tanh) {
    const float y = hyperbolic_tangent(x);
    return 1.0f - y * y;
  }
  if constexpr (kind == Activation::mish) {
    const MishGate gate = mish_gate(x);
    return gate.value + (x < -87.0f ? -87.0f : x > 20.0f ? 0.0f : x) * gate.slope;
  }
  if constexpr (kind == Activation::softplus) return logistic(x * parameter);
  if constexpr (kind == Activation::elu) {
    const float below = parameter * exponential(x > 0.0f ? 0.0f : x);
    return x > 0.0f ? 1.0f : below;
  }
  if constexpr (kind == Activation::absolute) return x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : 0.0f;
  if constexpr (kind == Activation::exponential) return exponential(x);
  if constexpr (kind == Activation::logarithm) return 1.0f / x;
  if constexpr (kind == Activation::square_root) {
    return x == 0.0f && parameter != 0.0f ? 0.0f : 0.5f / std::sqrt(x);
  }
  if constexpr (kind == Activation::inverse_root) return -0.5f / (x * std::sqrt(x));
  if constexpr (kind == Activation::reciprocal) {
    const float y = 1.0f / x;
    return -y * y;
  }
  return 1.0f;
}

// The gradient of an activation's input. ReLU's kinds select, so that an infinite gradient stays out where they are
// flat.
template <Activation kind>
PROFL_INLINE float through(float gradient, float x, float parameter) {
  if constexpr (kind == Activation::none) return gradient;
  if constexpr (kind == Activation::relu) return x > 0.0f ? gradient : 0.0f;
  if constexpr (kind == Activation::relu6) return (x > 0.0f) & (x < 6.0f) ? gradient : 0.0f;
  if constexpr (kind == Activation::at_least) return x >= parameter ? gradient : 0.0f;
  if constexpr (kind == Activation::at_most) return x <= parameter ? gradient : 0.0f;
  return gradient * derivative<kind>(x, parameter);
}

// Whether a kind costs an exponential, so that a loop over it is too long for GCC to unroll into vectors.
constexpr bool is_costly(Activation kind) {
  return kind == Activation::silu || kind == Activation::sigmoid ||
         (kind >= Activation::tanh && kind <= Activation::square_root);
}

template <Activation kind>
struct ActivationKind {
  static constexpr Activation value = kind;
};

// Calls body(ActivationKind<kind>{}): the choice is made outside of the body's loops.
template <typename Body>
PROFL_INLINE void with_activation(Activation kind, const Body& body) {
  switch (kind) {
    case Activation::relu:
      return body(ActivationKind<Activation::relu>{});
    case Activation::relu6:
      return body(ActivationKind<Activation::relu6>{});
    case Activation::leaky_relu:
      return body(ActivationKind<Activation::leaky_relu>{});
    case Activation::silu:
      return body(ActivationKind<Activation::silu>{});
    case Activation::hardswish:
      return body(ActivationKind<Activation::hardswish>{});
    case Activation::hardsigmoid:
      return body(ActivationKind<Activation::hardsigmoid>{});
    case Activation::sigmoid:
      return body(ActivationKind<Activation::sigmoid>{});
    case Activation::tanh:
      return body(ActivationKind<Activation::tanh>{});
    case Activation::mish:
      return body(ActivationKind<Activation::mish>{});
    case Activation::softplus:
      return body(ActivationKind<Activation::softplus>{});
    case Activation::elu:
      return body(ActivationKind<Activation::elu>{});
    case Activation::absolute:
      return body(ActivationKind<Activation::absolute>{});
    case Activation::exponential:
      return body(ActivationKind<Activation::exponential>{});
    case Activation::logarithm:
      return body(ActivationKind<Activation::logarithm>{});
    case Activation::square_root:
      return body(ActivationKind<Activation::square_root>{});
    case Activation::inverse_root:
      return body(ActivationKind<Activation::inverse_root>{});
    case Activation::reciprocal:
      return body(ActivationKind<Activation::reciprocal>{});
    case Activation::at_least:
      return body(ActivationKind<Activation::at_least>{});
    case Activation::at_most:
      return body(ActivationKind<Activation::at_most>{});
    case Activation::none:
      return body(ActivationKind<Activation::none>{});
  }
}

// The value of one activation outside of a loop that matters.
PROFL_INLINE float activate(Activation kind, float x, float parameter = 0.0f) {
  float y = x;
  with_activation(kind, [&](auto k) __attribute__((always_inline)) { y = activate<decltype(k)::value>(x, parameter); });
  return y;
}

}  // namespace profl
