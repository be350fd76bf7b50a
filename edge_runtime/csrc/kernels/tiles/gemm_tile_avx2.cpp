// Tiles for AVX2 with FMA: 16 registers of 8 floats.
#define PROFL_LANES 8
#define PROFL_ROWS 4
#define PROFL_TILE_NAME "avx2"
#define PROFL_TILE_OBJECT kTileAvx2
#include "kernels/tiles/gemm_tile_body.h"
