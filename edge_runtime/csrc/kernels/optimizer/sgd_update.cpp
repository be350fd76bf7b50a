#include "kernels/optimizer/sgd_update.h"

#include <cstring>

namespace profl {
namespace {

inline float load(float value) { return value; }
inline float load(uint16_t half) {
  const uint32_t bits = static_cast<uint32_t>(half) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

inline void store(float value, float* to) { *to = value; }
// To the nearest bfloat16, ties to even; a NaN stays one.
inline void store(float value, uint16_t* to) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  *to = static_cast<uint16_t>((value != value ? bits | 0x400000u : rounded) >> 16);
}

// What pulls a parameter beside its gradient: weight decay, and with a proximal term the way back to where it started.
struct Decay {
  float decay;
  float operator()(const float* parameter, int64_t i) const { return decay * parameter[i]; }
};

struct DecayAndProximal {
  float decay, proximal;
  const float* start;
  float operator()(const float* parameter, int64_t i) const {
    return decay * parameter[i] + proximal * (parameter[i] - start[i]);
  }
};

// The gradient takes the pull, the buffer takes the gradient, the parameter the buffer. Old and new may be the
// same place, never shifted against each other: `ivdep` tells the compiler that vectors are safe.
template <typename Element, typename Pull>
inline __attribute__((always_inline)) void with_buffer(const float* gradient, const SgdUpdate& u,
                                                       const SgdUpdate::Tensors& t, const Pull pull, int64_t count) {
  const auto* buffer = reinterpret_cast<const Element*>(t.buffer);
  auto* new_buffer = reinterpret_cast<Element*>(t.new_buffer);
  const float *parameter = t.parameter, rate = u.rate, momentum = u.momentum;
  float* new_parameter = t.new_parameter;
  if (u.nesterov) {
    // The parameter takes the step that the buffer would make next.
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) {
      const float decayed = gradient[i] + pull(parameter, i), velocity = momentum * load(buffer[i]) + decayed;
      new_parameter[i] = parameter[i] - rate * (decayed + momentum * velocity);
      store(velocity, new_buffer + i);
    }
    return;
  }
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) {
    const float velocity = momentum * load(buffer[i]) + (gradient[i] + pull(parameter, i));
    new_parameter[i] = parameter[i] - rate * velocity;
    store(velocity, new_buffer + i);
  }
}

template <typename Pull>
inline __attribute__((always_inline)) void without_buffer(const float* gradient, const SgdUpdate& u,
                                                          const SgdUpdate::Tensors& t, const Pull pull, int64_t count) {
  const float *parameter = t.parameter, rate = u.rate;
  float* new_parameter = t.new_parameter;
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) {
    new_parameter[i] = parameter[i] - rate * (gradient[i] + pull(parameter, i));
  }
}

PROFL_CLONES void with_float(const float* gradient, const SgdUpdate& u, const SgdUpdate::Tensors& t, int64_t count) {
  with_buffer<float>(gradient, u, t, Decay{u.weight_decay}, count);
}

PROFL_CLONES void with_half(const float* gradient, const SgdUpdate& u, const SgdUpdate::Tensors& t, int64_t count) {
  with_buffer<uint16_t>(gradient, u, t, Decay{u.weight_decay}, count);
}

PROFL_CLONES void plain(const float* gradient, const SgdUpdate& u, const SgdUpdate::Tensors& t, int64_t count) {
  without_buffer(gradient, u, t, Decay{u.weight_decay}, count);
}

PROFL_CLONES void proximal(const float* gradient, const SgdUpdate& u, const SgdUpdate::Tensors& t, int64_t count) {
  const DecayAndProximal pull{u.weight_decay, u.proximal, t.start};
  if (t.buffer == nullptr) {
    without_buffer(gradient, u, t, pull, count);
  } else if (t.half) {
    with_buffer<uint16_t>(gradient, u, t, pull, count);
  } else {
    with_buffer<float>(gradient, u, t, pull, count);
  }
}

}  // namespace

void SgdUpdate::apply(const float* gradient, const Tensors& tensors, int64_t count) const {
  if (tensors.start != nullptr) {
    profl::proximal(gradient, *this, tensors, count);
  } else if (tensors.buffer == nullptr) {
    plain(gradient, *this, tensors, count);
  } else if (tensors.half) {
    with_half(gradient, *this, tensors, count);
  } else {
    with_float(gradient, *this, tensors, count);
  }
}

}  // namespace profl
