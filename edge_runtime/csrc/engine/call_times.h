// The time of every call of a program, written down when it is unloaded; only where PROFL_CALL_TIMES is set when the
// runner is built, for tools/bench/kernel_times.py. Elsewhere nothing of it is left.
#pragma once

#ifdef PROFL_CALL_TIMES

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "values/values.h"

namespace profl {

class CallTimes {
 public:
  using Clock = std::chrono::steady_clock;

  void name(std::string operation) { calls_.push_back({std::move(operation), {}, {}}); }
  void arguments(size_t call, const std::vector<Value*>& values) { calls_[call].arguments = values; }
  void took(size_t call, Clock::time_point since) {
    calls_[call].seconds.push_back(std::chrono::duration<double>(Clock::now() - since).count());
  }

  // A line of JSON for each call, appended to the file that the environment names.
  ~CallTimes() {
    const char* path = std::getenv("PROFL_CALL_TIMES");
    std::FILE* file = path == nullptr ? nullptr : std::fopen(path, "a");
    if (file == nullptr) return;
    for (const Call& call : calls_) {
      std::fprintf(file, "{\"operator\":\"%s\",\"arguments\":[", call.operation.c_str());
      for (size_t i = 0; i < call.arguments.size(); ++i) {
        if (i > 0) std::fputc(',', file);
        write(file, *call.arguments[i]);
      }
      std::fputs("],\"seconds\":", file);
      list(file, call.seconds, "%.9f");
      std::fputs("}\n", file);
    }
    std::fclose(file);
  }

 private:
  struct Call {
    std::string operation;
    std::vector<Value*> arguments;
    std::vector<double> seconds;
  };

  template <typename Numbers>
  static void list(std::FILE* file, const Numbers& numbers, const char* format) {
    std::fputc('[', file);
    for (size_t i = 0; i < numbers.size(); ++i) {
      if (i > 0) std::fputc(',', file);
      std::fprintf(file, format, numbers[i]);
    }
    std::fputc(']', file);
  }

  static void write(std::FILE* file, const Value& value) {
    if (value.isNone()) {
      std::fputs("null", file);
    } else if (value.isTensor()) {
      std::fprintf(file, "{\"type\":%d,\"shape\":", static_cast<int>(value.toTensor().scalar_type()));
      list(file, value.toTensor().sizes(), "%d");
      std::fputc('}', file);
    } else if (!value.toIntList().empty()) {
      const std::vector<long> items(value.toIntList().begin(), value.toIntList().end());
      list(file, items, "%ld");
    } else if (value.toDouble() != 0) {
      std::fprintf(file, "%.17g", value.toDouble());
    } else {
      std::fprintf(file, "%ld", static_cast<long>(value.toInt()));
    }
  }

  std::vector<Call> calls_;
};

}  // namespace profl

#endif
