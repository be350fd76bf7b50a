// What an engine makes of programs and of damaged copies of them, to be compared with another engine's: ExecuTorch's
// and our own must accept the same programs and compute the same bits.
//
//   run_programs CASES SEED PROGRAM.pte...
//
// Runs every program as it is, then CASES damaged copies. Prints a line for each: a digest of the arena after two
// executions, or why the program was refused.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/flatbuffer.h"
#include "engine/program.h"
#include "engine/program_file.h"
#include "testing/damage.h"

namespace {

using Bytes = std::vector<uint8_t>;

constexpr uint64_t kMostArena = uint64_t{16} << 20;

// Small integers are valid labels and tokens, and as floats next to zero.
void fill(uint8_t* to, size_t bytes, std::mt19937_64& random) {
  for (size_t i = 0; i + sizeof(uint64_t) <= bytes; i += sizeof(uint64_t)) {
    const uint64_t value = random() % 4;
    std::memcpy(to + i, &value, sizeof(value));
  }
}

void fill_with_numbers(uint8_t* to, size_t bytes, std::mt19937_64& random) {
  for (size_t i = 0; i + sizeof(float) <= bytes; i += sizeof(float)) {
    const float value = static_cast<float>(random() % 2001) / 1000.0f - 1.0f;
    std::memcpy(to + i, &value, sizeof(value));
  }
}

// FNV-1a
uint64_t digest(const uint8_t* from, size_t bytes) {
  uint64_t value = 0xcbf29ce484222325;
  for (size_t i = 0; i < bytes; ++i) value = (value ^ from[i]) * 0x100000001b3;
  return value;
}

std::string run(const std::string& path, uint64_t seed) {
  std::mt19937_64 random(seed);
  profl::Program program(path, 1, 0);
  std::vector<std::unique_ptr<uint8_t[]>> inputs;
  for (size_t i = 0; i < program.input_count(); ++i) {
    const profl::Tensor info = program.input_info(i);
    inputs.emplace_back(new uint8_t[info.nbytes() + sizeof(uint64_t)]());
    const bool numbers = info.scalar_type() == profl::ScalarType::Float;
    (numbers ? fill_with_numbers : fill)(inputs.back().get(), info.nbytes(), random);
    program.set_input(i, inputs.back().get());
  }
  fill_with_numbers(program.arena(), program.arena_bytes(), random);
  for (int time = 0; time < 2; ++time) program.execute();
  char text[32];
  std::snprintf(text, sizeof(text), "%016llx",
                static_cast<unsigned long long>(digest(program.arena(), program.arena_bytes())));
  return text;
}

// How an engine says it is its own; what fails is the same.
std::string reason(const profl::ProgramError& error, const std::string& path) {
  std::string text = error.what();
  text = text.substr(text.compare(0, path.size(), path) == 0 ? path.size() + 2 : 0);
  const size_t failed = text.find(" failed");
  return failed == std::string::npos ? text : text.substr(0, failed + 7);
}

void print_case(const std::string& name, const Bytes& bytes, uint64_t seed) {
  try {
    if (profl::ProgramFile::read(bytes.data(), bytes.size()).arena_bytes > kMostArena) return;
  } catch (const profl::BrokenFile&) {
  } catch (const profl::MissingOperator&) {
  }
  const int file = memfd_create("program", 0);
  const std::string path = "/proc/self/fd/" + std::to_string(file);
  if (write(file, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) std::exit(2);
  try {
    std::printf("%s: %s\n", name.c_str(), run(path, seed).c_str());
  } catch (const profl::ProgramError& error) {
    std::printf("%s: %s\n", name.c_str(), reason(error, path).c_str());
  }
  close(file);
}

}  // namespace

int main(int count, char** words) {
  if (count < 4) {
    std::fprintf(stderr, "usage: run_programs CASES SEED PROGRAM.pte...\n");
    return 2;
  }
  const uint64_t cases = std::strtoull(words[1], nullptr, 10), seed = std::strtoull(words[2], nullptr, 10);
  std::vector<profl::Damage> damages;
  for (int i = 3; i < count; ++i) {
    std::ifstream file(words[i], std::ios::binary);
    const Bytes bytes(std::istreambuf_iterator<char>(file), {});
    print_case("program " + std::to_string(i - 3), bytes, seed);
    damages.emplace_back(bytes);
  }
  for (uint64_t at = 0; at < cases; ++at) {
    std::mt19937_64 random(seed * 1000003 + at);
    print_case("case " + std::to_string(at), damages[random() % damages.size()].damaged(random), at);
  }
  return 0;
}
