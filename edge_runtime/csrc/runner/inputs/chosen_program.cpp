#include "runner/inputs/chosen_program.h"

#include <algorithm>
#include <vector>

#include "runner/files/failure.h"

namespace profl {
namespace {

constexpr char kCachedPrefix[] = "cached-prefix";
const char* const kTrades[] = {"recompute", "bfloat16", "micro2", "micro4"};

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// The trade that a program's name ends with, empty for the step as it is.
std::string trade_of(const ProgramManifest& program) {
  for (const char* trade : kTrades) {
    if (ends_with(program.name, std::string("-") + trade)) return trade;
  }
  return "";
}

std::string joined(std::vector<std::string> words) {
  words.erase(std::unique(words.begin(), words.end()), words.end());
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text.empty() ? "none" : text;
}

const ProgramManifest& by_work(const Wanted& wanted, const Manifest& manifest) {
  const std::string trade = wanted.variant == "default" ? "" : wanted.variant;
  std::vector<std::string> names;
  for (const ProgramManifest& program : manifest.programs) {
    const bool grows = program.kind == "grow" || program.kind == "joint" || program.kind == "head";
    if (!grows || program.variant == kCachedPrefix) continue;
    if (program.work_name() == wanted.work && trade_of(program) == trade) return program;
    names.push_back(program.work_name() + (trade_of(program).empty() ? "" : " --variant " + trade_of(program)));
  }
  refuse("--work " + wanted.work + ": " + manifest.folder + " has no such program; it has " + joined(names) +
         "; give one of these, or export the bundle with --work " + wanted.work);
}

const ProgramManifest& by_block(const Wanted& wanted, const Manifest& manifest) {
  const std::string kind = wanted.first_block ? "joint" : wanted.purpose.empty() ? "grow" : wanted.purpose;
  const int64_t block = *wanted.block;
  std::vector<std::string> there;
  for (const ProgramManifest& program : manifest.programs) {
    if (program.kind != kind || program.variant == kCachedPrefix || !trade_of(program).empty()) continue;
    const bool first = !wanted.first_block ||
                       program.first_unit == manifest.blocks[static_cast<size_t>(*wanted.first_block - 1)].first_unit;
    if (program.block == block && first) return program;
    there.push_back(wanted.first_block ? program.name : std::to_string(program.block));
  }
  if (wanted.first_block) {
    refuse("--first-block " + std::to_string(*wanted.first_block) + ": " + manifest.folder +
           " has no program for blocks " + std::to_string(*wanted.first_block) + " to " + std::to_string(block) +
           " together; export the bundle with --joint");
  }
  if (kind == "distill" && block == 1) {
    refuse(
        "--purpose distill cannot be combined with --block 1: nothing stands in for it; give --block 2 or a later one");
  }
  refuse(manifest.folder + ": no '" + kind + "' program for block " + std::to_string(block) +
         "; give --block one of: " + joined(there));
}

// The training program of a bundle that has no other, such as one of a fine-tuning.
const ProgramManifest& only_one(const Wanted& wanted, const Manifest& manifest) {
  const ProgramManifest* alone = nullptr;
  size_t count = 0;
  for (const ProgramManifest& program : manifest.programs) {
    if (!program.trains()) continue;
    alone = &program;
    ++count;
  }
  if (count != 1 || wanted.first_block || !wanted.purpose.empty()) {
    refuse("nothing says what to train; give --block or --work");
  }
  return *alone;
}

}  // namespace

const ProgramManifest& chosen_program(const Wanted& wanted, const Manifest& manifest) {
  if (!wanted.work.empty()) return by_work(wanted, manifest);
  if (!wanted.block) return only_one(wanted, manifest);
  const auto blocks = static_cast<int64_t>(manifest.blocks.size());
  if (wanted.first_block && (*wanted.first_block >= *wanted.block || *wanted.block > blocks)) {
    refuse("--first-block " + std::to_string(*wanted.first_block) + ": must lie before --block, one of the " +
           std::to_string(blocks) + " blocks; give an earlier block, or leave it out");
  }
  return by_block(wanted, manifest);
}

}  // namespace profl
