// A training program run without Python, for tests on machines that have none: an emulated processor, a board.
//
//   train_step PROGRAM STATE STEPS THREADS
//
// STATE is a folder of raw little-endian values: `inputs/0`, `inputs/1`, ... for the inputs of the program, `once/NAME`
// for a mutable buffer that does not start as zeros, and `every/NAME` for one that is written before every step, as the
// batch is. Prints the instruction set that was chosen, then the loss of every step in full precision.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iterator>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "engine/program.h"
#include "kernels/tiles/gemm_tile.h"

namespace {

std::optional<std::vector<char>> read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::nullopt;
  return std::vector<char>(std::istreambuf_iterator<char>(file), {});
}

void check_size(const std::string& path, size_t bytes, size_t wanted) {
  if (bytes == wanted) return;
  throw std::runtime_error(path + ": has " + std::to_string(bytes) + " bytes, the program takes " +
                           std::to_string(wanted));
}

// The inputs, which have to live as long as the program runs.
std::vector<std::vector<char>> set_inputs(profl::Program& program, const std::string& state) {
  std::vector<std::vector<char>> inputs;
  for (size_t i = 0; i < program.input_count(); ++i) {
    const std::string path = state + "/inputs/" + std::to_string(i);
    std::optional<std::vector<char>> values = read(path);
    if (!values) throw std::runtime_error(path + ": cannot be read; the program takes this input");
    check_size(path, values->size(), program.input_info(i).nbytes());
    inputs.push_back(std::move(*values));
    program.set_input(i, inputs.back().data());
  }
  return inputs;
}

void set_buffers(profl::Program& program, const std::string& folder) {
  for (const std::string& name : program.buffer_names()) {
    const profl::Tensor buffer = program.buffer(name);
    const std::string path = folder + "/" + name;
    const std::optional<std::vector<char>> values = read(path);
    if (!values) continue;
    check_size(path, values->size(), buffer.nbytes());
    std::copy(values->begin(), values->end(), static_cast<char*>(buffer.mutable_data_ptr()));
  }
}

int run(const std::string& path, const std::string& state, int steps, int threads) {
  profl::Program program(path, threads, 0);
  const std::vector<std::vector<char>> inputs = set_inputs(program, state);
  std::printf("%s\n", profl::tile_kernels().name);
  set_buffers(program, state + "/once");
  for (int step = 0; step < steps; ++step) {
    set_buffers(program, state + "/every");
    program.execute();
    std::printf("%.9g\n", static_cast<double>(program.output(0).const_data_ptr<float>()[0]));
  }
  return 0;
}

}  // namespace

int main(int count, char** words) {
  if (count != 5) {
    std::fprintf(stderr, "usage: train_step PROGRAM STATE STEPS THREADS\n");
    return 2;
  }
  try {
    return run(words[1], words[2], std::atoi(words[3]), std::atoi(words[4]));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
