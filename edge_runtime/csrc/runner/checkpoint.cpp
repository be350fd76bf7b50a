#include "runner/checkpoint.h"

#include <algorithm>

#include "runner/files/failure.h"
#include "runner/files/json_reader.h"
#include "runner/files/json_text.h"

namespace profl {
namespace {

// Numbers are the same where they have the same value, however they are written.
std::string same_form(const std::string& json) {
  if (json.find_first_of(".eE") == std::string::npos || json[0] == '"') return json;
  return json_number(JsonReader(json, "").number());
}

std::string number_or_null(const std::optional<double>& value) { return value ? json_number(*value) : "null"; }

Progress read_progress(JsonReader& json) {
  Progress progress;
  json.object([&](const std::string& key) {
    std::optional<double>* const loss = key == "loss_first"      ? &progress.loss_first
                                        : key == "loss_last"     ? &progress.loss_last
                                        : key == "loss_smoothed" ? &progress.loss_smoothed
                                                                 : nullptr;
    if (key == "steps") {
      progress.steps = json.integer();
    } else if (loss == nullptr) {
      json.unknown(key);
    } else if (!json.null()) {
      *loss = json.number();
    }
  });
  return progress;
}

}  // namespace

std::string checkpoint_path(const std::string& output) { return output + ".checkpoint"; }

std::string checkpoint_text(const Settings& settings, const Progress& progress) {
  std::string text = "{\"settings\":{";
  for (const auto& [name, value] : settings) text += (text.back() == '{' ? "" : ",") + json_text(name) + ":" + value;
  return text + "},\"progress\":{\"steps\":" + std::to_string(progress.steps) +
         ",\"loss_first\":" + number_or_null(progress.loss_first) +
         ",\"loss_last\":" + number_or_null(progress.loss_last) +
         ",\"loss_smoothed\":" + number_or_null(progress.loss_smoothed) + "}}";
}

Progress read_checkpoint(const std::string& path, const std::string& text, const Settings& settings) {
  if (text.empty()) refuse(path + ": not a checkpoint");
  JsonReader json(text, path + ": not a checkpoint");
  Progress progress;
  json.object([&](const std::string& key) {
    if (key == "progress") {
      progress = read_progress(json);
    } else if (key != "settings") {
      json.unknown(key);
    } else {
      json.object([&](const std::string& name) {
        const std::string before(json.raw());
        const auto now =
            std::find_if(settings.begin(), settings.end(), [&](const auto& own) { return own.first == name; });
        if (now == settings.end()) json.unknown(name);
        if (same_form(before) == same_form(now->second)) return;
        refuse(path + ": belongs to a run with " + name + " " + before + ", this one has " + now->second +
               "; use the same settings, or leave --resume out to start again");
      });
    }
  });
  if (progress.steps < 0) json.broken("it is at no step");
  return progress;
}

}  // namespace profl
