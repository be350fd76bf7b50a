// Chooses the tile kernels for this processor.
#include "kernels/tiles/gemm_tile.h"

#include <cstdlib>
#include <cstring>

namespace profl {

const TileKernels& tile_kernels() {
  static const TileKernels& chosen = []() -> const TileKernels& {
#if defined(__x86_64__)
    // PROFL_INSTRUCTION_SET=baseline|avx2 lets tests run the kernels of a lesser machine.
    const char* wanted = std::getenv("PROFL_INSTRUCTION_SET");
    const bool any = wanted == nullptr || *wanted == '\0';
    __builtin_cpu_init();
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (avx512 && (any || std::strcmp(wanted, "avx512") == 0)) return kTileAvx512;
    if (avx2 && (any || std::strcmp(wanted, "baseline") != 0)) return kTileAvx2;
#endif
    return kTileBaseline;
  }();
  return chosen;
}

}  // namespace profl
