// A memory control group of our own, as edge_runtime/device/limits/cgroups.py makes it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace profl {

struct OwnGroup {
  std::string folder, kind;

  // A new one without a limit, below the first group where this user may make one; none where there is none.
  static std::optional<OwnGroup> make();
  std::string events() const;
  // Sets the hard limit, swap included where the kernel counts swap; false where the kernel refuses.
  bool limit(uint64_t bytes) const;
};

}  // namespace profl
