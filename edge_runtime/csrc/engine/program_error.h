// The one error of the engine.
#pragma once

#include <exception>
#include <string>
#include <utility>

namespace profl {

// Thrown for every failure; the message carries the file, and ExecuTorch's error number where there is one.
class ProgramError : public std::exception {
 public:
  explicit ProgramError(std::string message) : message_(std::move(message)) {}
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  std::string message_;
};

}  // namespace profl
