#include "engine/program.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <mutex>
#include <optional>
#include <stdexcept>

#include "engine/flatbuffer.h"
#include "engine/mapped_file.h"
#include "engine/method.h"
#include "engine/program_file.h"
#include "threads/thread_pool.h"

namespace profl {
namespace {

ProgramFile checked_file(const std::string& path, const MappedFile& bytes) {
  if (bytes.error() != 0) throw ProgramError(path + ": cannot be opened: " + std::strerror(bytes.error()));
  try {
    ProgramFile file = ProgramFile::read(bytes.data(), bytes.size());
    file.check();
    return file;
  } catch (const BrokenFile& broken) {
    throw ProgramError(path + ": is not a program this runtime runs: " + broken.what() +
                       "; copy the bundle again, or export it with this release");
  } catch (const MissingOperator& missing) {
    throw ProgramError(path + ": needs the operator " + missing.name() +
                       ", which this release does not have; install the release that exported it, or export it again");
  }
}

// The arena is pages of zeros that take memory when they are used: one that never fits is refused before.
void check_fits_machine(const std::string& path, uint64_t bytes) {
  const uint64_t machine =
      static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  if (bytes <= machine) return;
  throw ProgramError(path + ": no memory for an arena of " + std::to_string(bytes) + " bytes; this machine has " +
                     std::to_string(machine));
}

// Pages of zeros that take no memory before they are touched.
class Arena {
 public:
  Arena(const std::string& path, uint64_t bytes) : bytes_(static_cast<size_t>(bytes)) {
    memory_ = mmap(nullptr, mapped(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory_ == MAP_FAILED) {
      throw ProgramError(path + ": no memory for an arena of " + std::to_string(bytes) + " bytes");
    }
  }
  ~Arena() { munmap(memory_, mapped()); }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  uint8_t* data() const { return static_cast<uint8_t*>(memory_); }
  size_t bytes() const { return bytes_; }

 private:
  size_t mapped() const { return bytes_ == 0 ? 4096 : bytes_; }

  size_t bytes_;
  void* memory_;
};

}  // namespace

struct Program::State {
  std::string path;
  std::optional<Arena> arena;
  std::optional<Method> method;
  struct Reading {
    size_t instruction;
    int file;
    int64_t offset;
    char* to;
    size_t bytes;
  };
  std::vector<Reading> readings;  // by instruction
  size_t prefix_instructions = 0;
  size_t instructions = 0;
  std::vector<std::vector<size_t>> uses;  // of each input

  // What was read of the file goes with this: its values take more memory than those that run.
  void load(int threads) {
    auto bytes = std::make_unique<const MappedFile>(path.c_str());
    const ProgramFile file = checked_file(path, *bytes);
    check_fits_machine(path, file.arena_bytes);
    instructions = file.instructions.size();
    for (size_t input = 0; input < file.inputs.size(); ++input) uses.push_back(file.uses(input));
    set_thread_count(threads);
    arena.emplace(path, file.arena_bytes);
    method.emplace(path, file, std::move(bytes), arena->data());
  }

  void read(const Reading& reading) const {
    for (size_t done = 0; done < reading.bytes;) {
      const ssize_t count = pread(reading.file, reading.to + done, reading.bytes - done,
                                  static_cast<off_t>(reading.offset + static_cast<int64_t>(done)));
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) {
        throw ProgramError(path + ": its weights cannot be read: " + (count == 0 ? "they end early" : strerror(errno)));
      }
      done += static_cast<size_t>(count);
    }
  }
};

Program::Program(const std::string& path, int threads, size_t prefix_instructions) : state_(new State) {
  State& s = *state_;
  s.path = path;
  s.prefix_instructions = prefix_instructions;
  s.load(threads);
}

Program::~Program() = default;

size_t Program::input_count() const { return state_->method->input_count(); }

size_t Program::output_count() const { return state_->method->output_count(); }

Tensor Program::input_info(size_t index) const { return state_->method->input_info(index); }

void Program::set_input(size_t index, const void* data) { state_->method->set_input(index, data); }

void Program::place_input(size_t index, size_t arena_offset) {
  State& s = *state_;
  const size_t bytes = input_info(index).nbytes();
  if (bytes > arena_bytes() || arena_offset > arena_bytes() - bytes) {
    throw std::out_of_range(s.path + ": input " + std::to_string(index) + " is placed outside of the arena");
  }
  if (arena_offset % sizeof(int64_t) != 0) {
    throw std::out_of_range(s.path + ": input " + std::to_string(index) + " is placed between elements of the arena");
  }
  set_input(index, arena() + arena_offset);
}

void Program::read_before(size_t index, size_t instruction, int file, int64_t offset) {
  const auto later = [](size_t at, const State::Reading& other) { return at < other.instruction; };
  std::vector<State::Reading>& all = state_->readings;
  char* to = static_cast<char*>(state_->method->input_data(index));
  const State::Reading reading{instruction, file, offset, to, input_info(index).nbytes()};
  all.insert(std::upper_bound(all.begin(), all.end(), instruction, later), reading);
}

Seconds Program::execute(const std::function<void(size_t)>& before) {
  Method& method = *state_->method;
  for (size_t i = 0; i < method.input_count(); ++i) {
    if (method.input_data(i) == nullptr) {
      throw ProgramError(state_->path + ": input " + std::to_string(i) + " was not set");
    }
  }
  // Programs share the threads and their tile buffers.
  static std::mutex running;
  const std::lock_guard<std::mutex> alone(running);
  using Clock = std::chrono::steady_clock;
  const auto since = [](Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  const Clock::time_point start = Clock::now();
  double prefix = 0;
  auto reading = state_->readings.cbegin();
  for (size_t instruction = 0;; ++instruction) {
    if (instruction == state_->prefix_instructions) prefix = instruction == 0 ? 0 : since(start);
    for (; reading != state_->readings.cend() && reading->instruction == instruction; ++reading) {
      state_->read(*reading);
    }
    if (before != nullptr && instruction < state_->instructions) before(instruction);
    if (!method.step()) break;
  }
  method.restart();
  return {since(start), prefix};
}

Tensor Program::output(size_t index) const { return state_->method->output(index); }

std::vector<std::string> Program::buffer_names() const { return state_->method->buffer_names(); }

Tensor Program::buffer(const std::string& name) { return state_->method->buffer(name); }

size_t Program::arena_bytes() const { return state_->arena->bytes(); }

uint8_t* Program::arena() const { return state_->arena->data(); }

size_t Program::instruction_count() const { return state_->instructions; }

const std::vector<size_t>& Program::input_uses(size_t index) const { return state_->uses[index]; }

}  // namespace profl
