#include "runner/options.h"

#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>

#include "runner/files/failure.h"
#include "runner/help.h"

namespace profl {
namespace {

constexpr int64_t kMostThreads = 256;
constexpr double kMostEpochs = 1e9, kLargestSize = 9.2e18;

using Read = std::function<void(const std::string& option, const std::string& text)>;

Read integer(const std::function<void(int64_t)>& to, int64_t low, int64_t high = INT64_MAX) {
  return [=](const std::string& option, const std::string& text) {
    int64_t value = 0;
    const char* const end = text.data() + text.size();
    const auto [behind, error] = std::from_chars(text.data(), end, value);
    if (text.empty() || error != std::errc() || behind != end) refuse(option + " " + text + ": is not a whole number");
    if (value < low || value > high) {
      refuse(option + " " + text + ": give " + std::to_string(low) + " or more" +
             (high < INT64_MAX ? ", at most " + std::to_string(high) : ""));
    }
    to(value);
  };
}

Read number(std::optional<double>& to, bool above_zero, double high = 3e38) {
  return [&to, above_zero, high](const std::string& option, const std::string& text) {
    char* behind = nullptr;
    const double value = std::strtod(text.c_str(), &behind);
    const bool fits = value >= 0 && value <= high && (!above_zero || value > 0);  // not a number fits nothing
    if (text.empty() || *behind != '\0' || !fits) {
      refuse(option + " " + text + ": give a number " + (above_zero ? "above 0" : "from 0"));
    }
    to = value;
  };
}

Read word(std::string& to) {
  return [&to](const std::string& option, const std::string& text) {
    if (text.empty()) refuse(option + ": is empty; give a value");
    to = text;
  };
}

Read one_of(std::string& to, const std::vector<std::string>& known) {
  return [&to, known](const std::string& option, const std::string& text) {
    std::string list;
    for (const std::string& name : known) {
      if (name == text) {
        to = text;
        return;
      }
      list += (list.empty() ? "" : ", ") + name;
    }
    refuse(option + " " + text + ": give one of: " + list);
  };
}

Read size(std::optional<uint64_t>& to) {
  return [&to](const std::string& option, const std::string& text) {
    char* behind = nullptr;
    const double value = text.empty() || text[0] < '0' || text[0] > '9' ? 0 : std::strtod(text.c_str(), &behind);
    std::string unit = behind == nullptr ? "" : behind;
    for (char& letter : unit) letter = static_cast<char>(std::toupper(static_cast<unsigned char>(letter)));
    const std::map<std::string, double> units = {{"B", 1},        {"K", 1024},     {"KB", 1024},     {"KIB", 1024},
                                                 {"M", 1 << 20},  {"MB", 1 << 20}, {"MIB", 1 << 20}, {"G", 1 << 30},
                                                 {"GB", 1 << 30}, {"GIB", 1 << 30}};
    const auto found = units.find(unit);
    if (found == units.end() || !(value * found->second >= 1) || value * found->second > kLargestSize) {
      refuse(option + " " + text + ": is not a size above zero with a unit; write it as 128MB");
    }
    to = static_cast<uint64_t>(value * found->second);
  };
}

std::map<std::string, Read> readers(Options& options) {
  const auto to = [](std::optional<int64_t>& place) { return [&place](int64_t value) { place = value; }; };
  const auto plain = [](int64_t& place) { return [&place](int64_t value) { place = value; }; };
  const Read weights = [&options](const std::string&, const std::string& text) { options.weights.push_back(text); };
  return {{"--block", integer(to(options.wanted.block), 1)},
          {"--first-block", integer(to(options.wanted.first_block), 1)},
          {"--purpose", one_of(options.wanted.purpose, {"grow", "distill"})},
          {"--work", word(options.wanted.work)},
          {"--variant", one_of(options.wanted.variant, {"default", "recompute", "bfloat16", "micro2", "micro4"})},
          {"--data", word(options.data)},
          {"--split", one_of(options.split, {"test", "train"})},
          {"--steps", integer(to(options.steps), 1)},
          {"--epochs", number(options.epochs, true, kMostEpochs)},
          {"--max-seconds", number(options.max_seconds, true)},
          {"--lr", number(options.learning_rate, false)},
          {"--proximal-mu", number(options.proximal_mu, false)},
          {"--augment", one_of(options.augment, {"crop-flip"})},
          {"--augment-seed", integer(to(options.augment_seed), INT64_MIN)},
          {"--augment-epoch", integer(to(options.augment_epoch), 0)},
          {"--seed", integer(plain(options.seed), INT64_MIN)},
          {"--weights", weights},
          {"-o", word(options.output)},
          {"--base-version", word(options.base_version)},
          {"--memory-limit", size(options.limit_bytes)},
          {"--threads", integer(plain(options.threads), 1, kMostThreads)},
          {"--checkpoint-every", integer(plain(options.checkpoint_every), 0)}};
}

std::map<std::string, bool*> flags(Options& options) {
  return {{"--initial-prefix", &options.initial_prefix},
          {"--resume", &options.resume},
          {"--json", &options.json},
          {"--evaluate", &options.evaluates}};
}

// Of an evaluation: what only a training takes.
void check_evaluation(const Options& options) {
  const Wanted& wanted = options.wanted;
  const std::pair<const char*, bool> of_training[] = {{"--first-block", wanted.first_block.has_value()},
                                                      {"--purpose", !wanted.purpose.empty()},
                                                      {"--work", !wanted.work.empty()},
                                                      {"--variant", !wanted.variant.empty()},
                                                      {"--steps", options.steps.has_value()},
                                                      {"--epochs", options.epochs.has_value()},
                                                      {"--max-seconds", options.max_seconds.has_value()},
                                                      {"--lr", options.learning_rate.has_value()},
                                                      {"--proximal-mu", options.proximal_mu.has_value()},
                                                      {"--augment", !options.augment.empty()},
                                                      {"--augment-seed", options.augment_seed.has_value()},
                                                      {"--augment-epoch", options.augment_epoch.has_value()},
                                                      {"--base-version", !options.base_version.empty()},
                                                      {"-o", !options.output.empty()},
                                                      {"--resume", options.resume}};
  for (const auto& [name, given] : of_training) {
    if (given) refuse(std::string(name) + " cannot be combined with --evaluate: nothing is trained; leave one out");
  }
}

void check_together(const Options& options) {
  const Wanted& wanted = options.wanted;
  if (options.bundle.empty())
    refuse("nothing says what to train with; give the folder of a bundle, see profl-train --help");
  if (options.data.empty()) refuse("--data is missing; give idx:DIR, fashion-mnist:DIR or npz:FILE");
  if (options.evaluates) return check_evaluation(options);
  if (!options.split.empty())
    refuse("--split requires --evaluate: a training takes the part for training; leave it out");
  if (!wanted.work.empty() && (wanted.block || wanted.first_block || !wanted.purpose.empty())) {
    refuse("--work cannot be combined with --block, --first-block and --purpose; leave one out");
  }
  if (!wanted.variant.empty() && wanted.work.empty()) refuse("--variant requires --work; give both, or leave it out");
  if (wanted.first_block && wanted.purpose == "distill") {
    refuse("--first-block cannot be combined with --purpose distill: one block alone is distilled; leave one out");
  }
  if (options.steps && options.epochs) refuse("--steps cannot be combined with --epochs; leave one of the two out");
  if ((options.augment_seed || options.augment_epoch) && options.augment.empty()) {
    refuse("--augment-seed and --augment-epoch require --augment; give it, or leave them out");
  }
  if (options.resume && options.output.empty()) refuse("--resume requires -o: the checkpoint lies beside the output");
}

}  // namespace

std::optional<Options> parse_options(int count, char** words) {
  Options options;
  std::map<std::string, Read> known = readers(options);
  known["--output"] = known["-o"];
  known["--batch-seed"] = known["--seed"];
  const std::map<std::string, bool*> switches = flags(options);
  for (int at = 1; at < count; ++at) {
    std::string name = words[at];
    if (name == "-h" || name == "--help" || name == "--version") {
      std::fputs(name == "--version" ? kVersion : kHelp, stdout);
      return std::nullopt;
    }
    if (name.empty() || name[0] != '-') {
      if (!options.bundle.empty()) refuse(name + ": one bundle is enough; put options before their values");
      options.bundle = name;
      continue;
    }
    const auto flag = switches.find(name);
    if (flag != switches.end()) {
      *flag->second = true;
      continue;
    }
    const size_t equals = name.find('=');
    std::optional<std::string> value;
    if (equals != std::string::npos) {
      value = name.substr(equals + 1);
      name.resize(equals);
    }
    const auto reader = known.find(name);
    if (reader == known.end()) refuse(name + ": is not an option; profl-train --help lists all");
    if (!value && at + 1 == count) refuse(name + ": a value is missing behind it");
    reader->second(name, value ? *value : words[++at]);
  }
  check_together(options);
  if (options.split.empty()) options.split = options.evaluates ? "test" : "train";
  if (options.threads == 0) options.threads = usable_cores();
  return options;
}

}  // namespace profl
