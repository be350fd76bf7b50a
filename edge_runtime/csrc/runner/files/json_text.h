// JSON as Python writes it: files of the runner and of `profl-edge train` are the same to the byte.
#pragma once

#include <string>
#include <string_view>

namespace profl {

// With quotation marks around it.
std::string json_text(std::string_view text);
// The shortest digits that read back as `value`, in Python's form: 0.25, 1.0, 1e-05.
std::string json_number(double value);

}  // namespace profl
