#include "runner/prepared.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "runner/files/failure.h"
#include "runner/files/json_text.h"
#include "runner/files/output_file.h"
#include "runner/order.h"

namespace profl {
namespace {

// Of a safetensors file: its metadata, and what its header says of a tensor beside the name.
constexpr uint64_t kHeaderBytes = 4096, kEntryBytes = 160;

void check_options(const Options& options, const ProgramManifest& program, const DataSet& data) {
  if (options.proximal_mu && !(program.optimizer && program.optimizer->proximal)) {
    refuse("--proximal-mu: " + program.name + " has no proximal term; export the bundle with --proximal");
  }
  if (!options.augment.empty() && data.image_shape.empty()) {
    refuse("--augment: --data " + options.data + " holds inputs of the model's own, not images; leave --augment out");
  }
  if (data.examples < program.batch) {
    refuse("--data " + options.data + ": " + std::to_string(data.examples) + " examples do not fill one batch of " +
           std::to_string(program.batch) + "; give more data, or export with a smaller --batch");
  }
}

std::string quoted_or_null(const std::string& text) { return text.empty() ? "null" : json_text(text); }

std::string or_null(const std::optional<int64_t>& value) { return value ? std::to_string(*value) : "null"; }

// As edge_runtime/device/prepare/checkpoint.py lists them.
Settings settings_of(const Prepared& prepared, const Manifest& manifest, const std::string& weights) {
  const Options& options = prepared.options;
  return {{"bundle", json_text(manifest.digest)},
          {"program", json_text(prepared.program.name)},
          {"data", json_text(options.data)},
          {"examples", std::to_string(prepared.examples->size())},
          {"labels_crc32", std::to_string(prepared.examples->data().labels_crc32)},
          {"learning_rate", json_number(prepared.learning_rate)},
          {"seed", std::to_string(options.seed)},
          {"weights", options.weights.empty() ? "null" : json_text(weights)},
          {"base_version", json_text(prepared.base_version)},
          {"threads", std::to_string(options.threads)},
          {"cache_prefix", "null"},
          {"proximal_mu", json_number(options.proximal_mu.value_or(0))},
          {"augment", quoted_or_null(options.augment)},
          {"augment_seed", or_null(options.augment_seed)},
          {"augment_epoch", or_null(options.augment_epoch)},
          {"cached_augmentations", "null"}};
}

int64_t step_count(const Options& options, int64_t per_epoch) {
  if (options.steps) return *options.steps;
  return std::max<int64_t>(1, std::llrint(std::nearbyint(options.epochs.value_or(1) * static_cast<double>(per_epoch))));
}

uint64_t file_bytes(const ProgramManifest& program, bool checkpoint) {
  uint64_t bytes = kHeaderBytes;
  for (const ProgramValue& tensor : program.tensors) {
    const bool kept = checkpoint ? tensor.role != "gradient_sum" : is_trained(tensor.role);
    if (kept) bytes += tensor.bytes() + tensor.name.size() + kEntryBytes;
  }
  return bytes;
}

// At one time: a checkpoint and what replaces it, less the checkpoint that is there already.
void check_room(const Prepared& prepared) {
  const Options& options = prepared.options;
  if (options.output.empty()) return;
  const uint64_t state = file_bytes(prepared.program, true), update = file_bytes(prepared.program, false);
  const bool keeps = options.checkpoint_every > 0 && options.checkpoint_every < prepared.steps;
  check_disk(options.output, (keeps && !prepared.checkpoint ? state : 0) + std::max(state, update));
}

void continue_from(Prepared& prepared) {
  const std::string path = checkpoint_path(prepared.options.output);
  if (!prepared.options.resume || access(path.c_str(), F_OK) != 0) return;
  auto checkpoint = std::make_unique<TensorFile>(path, true);
  prepared.progress = read_checkpoint(path, checkpoint->metadata("profl_checkpoint"), prepared.settings);
  for (const ProgramValue& tensor : prepared.program.tensors) {
    if (tensor.role != "gradient_sum") checkpoint->check(tensor.name, tensor.dtype, tensor.shape);
  }
  if (prepared.progress.steps > prepared.steps) {
    refuse(path + ": is at step " + std::to_string(prepared.progress.steps) + ", beyond --steps " +
           std::to_string(prepared.steps) + "; give more steps");
  }
  prepared.checkpoint = std::move(checkpoint);
}

void note(const Prepared& prepared) {
  if (isatty(STDERR_FILENO) != 1) return;
  if (!prepared.initial_blocks.empty() && !prepared.options.initial_prefix) {
    std::fputs("note: without --weights, frozen blocks keep the initial values\n", stderr);
  }
  if (prepared.options.output.empty())
    std::fputs("note: without -o, the result of this training is not kept\n", stderr);
}

}  // namespace

Example example_of(const Manifest& manifest, const ProgramManifest& program) {
  std::string loss = program.loss;
  // A distillation has a loss of its own and takes no labels: the data are those of its block's evaluation.
  if (program.kind == "distill") {
    for (const ProgramManifest& other : manifest.programs) {
      if (other.kind == "eval" && other.block == program.block) loss = other.loss;
    }
  }
  const int64_t targets = loss == "mse" ? manifest.classes : 0;
  return {manifest.input_shape,
          manifest.input_dtype,
          manifest.classes,
          targets,
          targets != 0 ? 0 : manifest.positions,
          manifest.vocabulary.value_or(0)};
}

Prepared prepare(Options options) {
  Prepared prepared;
  prepared.options = std::move(options);
  const Options& asked = prepared.options;
  const Manifest manifest = Manifest::read(asked.bundle);
  prepared.program = chosen_program(asked.wanted, manifest);
  const ProgramManifest& program = prepared.program;
  const Example wanted = example_of(manifest, program);
  DataSet data = open_data(asked.data, wanted, asked.split);
  data.check(wanted);
  check_options(asked, program, data);
  prepared.examples = std::make_unique<ExampleReader>(std::move(data), wanted);
  const LaidWeights weights(manifest, asked.weights);
  weights.check_whole(program, asked.initial_prefix);
  const std::string version = weights.version();
  prepared.base_version = asked.base_version.empty() ? version : asked.base_version;
  prepared.initial_blocks = weights.initial_blocks(program);
  prepared.steps = step_count(asked, prepared.examples->size() / program.batch);
  prepared.learning_rate = asked.learning_rate.value_or(usual_rate(program));
  prepared.settings = settings_of(prepared, manifest, version);
  continue_from(prepared);
  check_room(prepared);
  const std::string path = manifest.verified("programs/" + program.name + ".pte");
  prepared.loaded = std::make_unique<LoadedProgram>(program, path, weights, static_cast<int>(asked.threads));
  note(prepared);
  return prepared;
}

}  // namespace profl
