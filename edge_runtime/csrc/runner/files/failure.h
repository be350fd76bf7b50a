// How the runner ends where something is wrong: one line, and an exit status.
#pragma once

#include <string>
#include <utility>

namespace profl {

struct Failure {
  std::string message;
  int status;
};

constexpr int kFailed = 1;    // the work failed
constexpr int kDiverged = 3;  // its loss or tensors stopped being numbers
constexpr int kRefused = 2;   // wrong usage, or an input that cannot be used

[[noreturn]] inline void refuse(std::string message) { throw Failure{std::move(message), kRefused}; }
[[noreturn]] inline void fail(std::string message) { throw Failure{std::move(message), kFailed}; }

}  // namespace profl
