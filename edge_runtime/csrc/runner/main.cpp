// profl-train: what `profl-edge train` and `eval` do, as one static program without Python.
#include <csignal>
#include <cstdio>
#include <exception>
#include <new>
#include <string>

#include "device/process.h"
#include "runner/evaluation.h"
#include "runner/files/failure.h"
#include "runner/limits/supervised.h"
#include "runner/options.h"
#include "runner/training.h"

namespace {

int failed(const std::string& message, int status) {
  std::string line = message;
  for (char& letter : line) {
    if (letter == '\n' || letter == '\r') letter = ' ';
  }
  std::fprintf(stderr, "profl-train: error: %s\n", line.c_str());
  return status;
}

}  // namespace

int main(int count, char** words) {
  profl::settle_allocator();
  try {
    std::optional<profl::Options> options = profl::parse_options(count, words);
    if (!options) return 0;
    return profl::supervised(options->limit_bytes, [&](const profl::OwnGroup* group) {
      return options->evaluates ? profl::evaluate(*options, group) : profl::train(std::move(*options), group);
    });
  } catch (const profl::Failure& failure) {
    return failed(failure.message, failure.status);
  } catch (const std::bad_alloc&) {
    return failed("no memory left; give the process more, or export a smaller batch or block", profl::kFailed);
  } catch (const std::exception& error) {
    const std::string text = error.what();
    const bool no_proc = text.compare(0, 6, "/proc/") == 0;
    return failed(text + (no_proc ? ": memory is measured there; mount /proc" : ""), profl::kFailed);
  }
}
