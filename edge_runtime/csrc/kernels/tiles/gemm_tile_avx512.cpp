// Tiles for AVX-512: 32 registers of 16 floats.
#define PROFL_LANES 16
#define PROFL_ROWS 8
#define PROFL_TILE_NAME "avx512"
#define PROFL_TILE_OBJECT kTileAvx512
#include "kernels/tiles/gemm_tile_body.h"
