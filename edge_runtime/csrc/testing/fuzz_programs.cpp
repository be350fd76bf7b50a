// Damages programs in memory and runs what the loader accepts: no damage may make a kernel touch a byte outside of its
// arguments' tensors. Meant for a build with PROFL_SANITIZE, where before each instruction the whole arena is poisoned
// but for the tensors that the instruction takes.
//
//   fuzz_programs SECONDS SEED PROGRAM.pte...
//
// Prints how many programs were tried, loaded and run. A fault ends the process; the seed and the case are printed then
// (FUZZ_CASE=N runs one case alone, FUZZ_WRITE=FILE writes its program).
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "engine/flatbuffer.h"
#include "engine/program.h"
#include "engine/program_file.h"
#include "testing/damage.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

namespace {

using profl::ProgramFile;
using Bytes = std::vector<uint8_t>;

uint64_t current_seed, current_case;

[[maybe_unused]] void say_case() {
  std::fprintf(stderr, "fuzz_programs: seed %llu, case %llu\n", static_cast<unsigned long long>(current_seed),
               static_cast<unsigned long long>(current_case));
}

Bytes read(const char* path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    std::fprintf(stderr, "%s: cannot be read\n", path);
    std::exit(2);
  }
  return Bytes(std::istreambuf_iterator<char>(file), {});
}

// A file in memory, which a path names.
class MemoryFile {
 public:
  MemoryFile() : file_(memfd_create("program", 0)), path_("/proc/self/fd/" + std::to_string(file_)) {}
  ~MemoryFile() { close(file_); }
  const std::string& path() const { return path_; }
  void write(const Bytes& bytes) const {
    if (ftruncate(file_, 0) != 0 ||
        pwrite(file_, bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
      std::perror("fuzz_programs");
      std::exit(2);
    }
  }

 private:
  int file_;
  std::string path_;
};

// What a hostile bundle may put in: small integers, which are valid labels and tokens, and anything else.
void fill(uint8_t* to, size_t bytes, std::mt19937_64& random) {
  const bool small = random() % 2 == 0;
  for (size_t i = 0; i + sizeof(uint64_t) <= bytes; i += sizeof(uint64_t)) {
    const uint64_t value = small ? random() % 4 : random();
    std::memcpy(to + i, &value, sizeof(value));
  }
}

struct Tensor {
  size_t offset, bytes;
};

// The tensors in the arena that each instruction takes.
std::vector<std::vector<Tensor>> tensors_of(const ProgramFile& file) {
  std::vector<std::vector<Tensor>> all;
  for (const profl::FileInstruction& instruction : file.instructions) {
    std::vector<Tensor> taken;
    for (int32_t index : instruction.arguments) {
      const profl::FileValue& value = file.values[static_cast<size_t>(index)];
      if (value.offset == profl::FileValue::kOutside) continue;
      const int64_t bytes = value.argument.elements * profl::bytes_of(value.argument.element);
      taken.push_back({static_cast<size_t>(value.offset), static_cast<size_t>(bytes)});
    }
    all.push_back(std::move(taken));
  }
  return all;
}

struct Counts {
  uint64_t tried = 0, loaded = 0, executed = 0, failed = 0;
};

// Runs a program that was loaded, with every input in a block of its own size.
void run(profl::Program& program, const ProgramFile& file, std::mt19937_64& random, Counts& counts) {
  std::vector<std::unique_ptr<uint8_t[]>> inputs;
  for (size_t i = 0; i < program.input_count(); ++i) {
    const size_t bytes = program.input_info(i).nbytes();
    inputs.emplace_back(new uint8_t[bytes]());
    fill(inputs.back().get(), bytes, random);
    program.set_input(i, inputs.back().get());
  }
  uint8_t* const arena = program.arena();
  const size_t bytes = program.arena_bytes();
  fill(arena, bytes, random);
  const std::vector<std::vector<Tensor>> tensors = tensors_of(file);
  try {
    program.execute([&](size_t instruction) {
      ASAN_POISON_MEMORY_REGION(arena, bytes);
      for (const Tensor& tensor : tensors[instruction])
        ASAN_UNPOISON_MEMORY_REGION(arena + tensor.offset, tensor.bytes);
    });
    ++counts.executed;
  } catch (const profl::ProgramError&) {
    ++counts.failed;
  }
  ASAN_UNPOISON_MEMORY_REGION(arena, bytes);
}

void try_program(const MemoryFile& memory, const Bytes& bytes, std::mt19937_64& random, Counts& counts) {
  constexpr uint64_t kMostArena = uint64_t{64} << 20;
  ++counts.tried;
  try {
    const ProgramFile file = ProgramFile::read(bytes.data(), bytes.size());
    if (file.arena_bytes > kMostArena) return;
    memory.write(bytes);
    profl::Program program(memory.path(), 1, 0);
    ++counts.loaded;
    run(program, file, random, counts);
  } catch (const profl::ProgramError&) {
  } catch (const profl::BrokenFile&) {
  } catch (const profl::MissingOperator&) {
  }
}

}  // namespace

int main(int count, char** words) {
  if (count < 4) {
    std::fprintf(stderr, "usage: fuzz_programs SECONDS SEED PROGRAM.pte...\n");
    return 2;
  }
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_set_death_callback(say_case);
#endif
  const double seconds = std::atof(words[1]);
  current_seed = std::strtoull(words[2], nullptr, 10);
  std::vector<profl::Damage> programs;
  for (int i = 3; i < count; ++i) programs.emplace_back(read(words[i]));
  const char* only = std::getenv("FUZZ_CASE");
  const char* kept = std::getenv("FUZZ_WRITE");
  const MemoryFile memory;
  Counts counts;
  const auto start = std::chrono::steady_clock::now();
  const auto passed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };
  if (only != nullptr) current_case = std::strtoull(only, nullptr, 10);
  do {
    std::mt19937_64 random(current_seed * 1000003 + current_case);
    const Bytes damaged = programs[random() % programs.size()].damaged(random);
    if (kept != nullptr) {
      std::ofstream(kept, std::ios::binary).write(reinterpret_cast<const char*>(damaged.data()), damaged.size());
    }
    try_program(memory, damaged, random, counts);
    ++current_case;
  } while (only == nullptr && passed() < seconds);
  std::printf("%llu programs, %llu loaded, %llu run to their end, %llu ended early, %.0f s, no fault\n",
              static_cast<unsigned long long>(counts.tried), static_cast<unsigned long long>(counts.loaded),
              static_cast<unsigned long long>(counts.executed), static_cast<unsigned long long>(counts.failed),
              passed());
  return 0;
}
