// Which elements dropout keeps: a hash of (seed, execution, layer, element), so that forward pass, recomputation and
// backward pass agree without a stored mask, on every machine and for any number of threads.
#pragma once

#include <cstdint>

#include "kernels/common/vector_math.h"

namespace profl {

class DropoutMask {
 public:
  // `random` is the program's input [seed, execution]; `layer` counts the layers of the model that drop something.
  DropoutMask(const int64_t* random, int64_t layer, float probability)
      : threshold_(static_cast<uint32_t>(static_cast<double>(probability) * 4294967296.0 > 4294967295.0
                                             ? 4294967295.0
                                             : static_cast<double>(probability) * 4294967296.0)),
        factor_(probability < 1.0f ? 1.0f / (1.0f - probability) : 0.0f) {
    uint64_t key = mix64(static_cast<uint64_t>(random[0]));
    key = mix64(key ^ static_cast<uint64_t>(random[1]));
    key = mix64(key ^ static_cast<uint64_t>(layer));
    low_ = static_cast<uint32_t>(key);
    high_ = static_cast<uint32_t>(key >> 32);
  }

  // What element `element` is multiplied by: 0, or 1 / (1 - probability). Repeats after 2^32 elements.
  PROFL_INLINE float factor(uint32_t element) const {
    return mix32(mix32(element ^ low_) + high_) >= threshold_ ? factor_ : 0.0f;
  }

 private:
  // SplitMix64 (Steele, Lea, Flood, 2014).
  static uint64_t mix64(uint64_t value) {
    value += 0x9E3779B97F4A7C15u;
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9u;
    value = (value ^ (value >> 27)) * 0x94D049BB133111EBu;
    return value ^ (value >> 31);
  }

  // The "lowbias32" hash (Wellons, 2018): a bijection of 32 bits whose steps all have vector instructions.
  static PROFL_INLINE uint32_t mix32(uint32_t value) {
    value = (value ^ (value >> 16)) * 0x7FEB352Du;
    value = (value ^ (value >> 15)) * 0x846CA68Bu;
    return value ^ (value >> 16);
  }

  uint32_t threshold_, low_, high_;
  float factor_;
};

}  // namespace profl
