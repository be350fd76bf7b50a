// One program, loaded: its arena, its weights, its inputs, and the promise. As
// edge_runtime/device/worker/loaded_program.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/program.h"
#include "runner/inputs/laid_weights.h"
#include "runner/inputs/manifest.h"
#include "runner/limits/own_group.h"

namespace profl {

class LoadedProgram {
 public:
  // Throws Failure, with the limit named, where the file, the manifest and the weights do not fit each other.
  LoadedProgram(const ProgramManifest& program, const std::string& path, const LaidWeights& weights, int threads);
  ~LoadedProgram();
  LoadedProgram(const LoadedProgram&) = delete;
  LoadedProgram& operator=(const LoadedProgram&) = delete;

  // Measures the base; `rehearse` does what the training does between two executions. Throws Failure where a limit, the
  // one that was asked for or that of a control group, is below the prediction; sets the former then, of `group` where
  // this process is in one of its own, so that the kernel keeps the process to it.
  void promise(const std::function<void()>& rehearse, std::optional<uint64_t> asked, const OwnGroup* group,
               int threads);
  // Reads parameters, running statistics and frozen weights that stay.
  void load_tensors();
  void set_hyperparameters(const std::vector<float>& values);
  void set_random(int64_t seed, int64_t execution);
  Seconds execute();
  // What the program puts out, valid until the next execution: `count` numbers. Throws Failure where it is something
  // else.
  const float* outputs(size_t count);
  float loss() { return program_->output(0).const_data_ptr<float>()[0]; }

  // Where the examples of one execution go, and their labels or targets (null where the program takes none).
  void* data() { return program_->buffer(data_).mutable_data_ptr(); }
  char* labels() { return labels_.empty() ? nullptr : labels_.data(); }

  // What an update carries, and what a checkpoint does.
  std::vector<TensorView> trained_tensors();
  std::vector<TensorView> state_tensors();
  void read_state(const TensorFile& checkpoint);
  size_t arena_bytes() const { return program_->arena_bytes(); }

  uint64_t base_bytes = 0, predicted_bytes = 0;
  // What holds the process: the lower one of both.
  std::optional<uint64_t> limit_bytes;
  std::string limit_kind = "none";

 private:
  struct Reading {
    std::string what;
    Source source;
    void* to;
  };

  void check_limit(uint64_t bytes, const std::string& name) const;
  void check_sizes(const std::string& path) const;
  void check_buffers(const std::string& path);
  void check_inputs(const std::string& path) const;
  void set_inputs(const LaidWeights& weights);
  void map_frozen();
  std::vector<TensorView> tensors(const std::function<bool(const ProgramValue&)>& wanted);
  static void read(const Reading& reading);
  template <typename Work>
  auto translated(const Work& work) const;

  ProgramManifest manifest_;
  std::unique_ptr<Program> program_;
  std::string data_;
  std::vector<Reading> readings_;
  std::vector<std::shared_ptr<const OpenFile>> files_;  // that frozen weights are read from in every step
  std::vector<char> labels_;
  std::vector<float> hyperparameters_;
  std::vector<int64_t> random_;
  char* frozen_ = nullptr;
};

}  // namespace profl
