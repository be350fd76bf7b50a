// What a manifest must satisfy before anything of it is used: bundles may come from strangers.
#pragma once

#include <cstdint>
#include <string>

namespace profl {

struct Manifest;

constexpr int64_t kLargestBytes = int64_t{1} << 53;

// Throws Failure that names `where` and the field. When a program is loaded, the rest is held against the program.
void check_manifest(const Manifest& manifest, const std::string& where);

}  // namespace profl
