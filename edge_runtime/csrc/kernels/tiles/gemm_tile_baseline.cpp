// Tiles for every machine: registers of 4 floats, 32 of them with NEON and 16 with SSE2.
#define PROFL_LANES 4
#if defined(__aarch64__)
#define PROFL_ROWS 8
#define PROFL_TILE_NAME "neon"
#else
#define PROFL_ROWS 4
#define PROFL_TILE_NAME "baseline"
#endif
#define PROFL_TILE_OBJECT kTileBaseline
#include "kernels/tiles/gemm_tile_body.h"
