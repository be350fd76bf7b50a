// How loops are compiled: into every caller, or once for each kind of processor.
#pragma once

#define PROFL_INLINE inline __attribute__((always_inline))

// Row helpers are compiled for AVX2 as well and picked by the loader; elsewhere the baseline is all there is.
#if defined(__x86_64__)
#define PROFL_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define PROFL_CLONES
#endif
// For loops that compute more than they read: also with fused multiplications and more registers. Code counts in a
// small process, so these are few.
#if defined(__x86_64__)
#define PROFL_WIDE_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define PROFL_WIDE_CLONES
#endif
