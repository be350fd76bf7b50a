// Holding the instructions of a program against the table of operators.
#include <optional>
#include <stdexcept>

#include "engine/flatbuffer.h"
#include "engine/program_file.h"

namespace profl {

void ProgramFile::check() const {
  std::vector<std::optional<OperatorRow>> rows(operators.size());
  for (size_t i = 0; i < operators.size(); ++i) {
    try {
      rows[i].emplace(operators[i]);
    } catch (const std::invalid_argument&) {
      throw MissingOperator(kNamespace + operators[i].substr(0, kLongestName) + ".out");
    }
  }
  for (size_t at = 0; at < instructions.size(); ++at) {
    const FileInstruction& instruction = instructions[at];
    std::vector<const Argument*> stack;
    for (int32_t index : instruction.arguments) stack.push_back(&values[static_cast<size_t>(index)].argument);
    const std::string where = "instruction " + std::to_string(at) + " (";
    if (instruction.operation == FileInstruction::kJump) {
      const Argument& asked = *stack[0];
      const bool one = asked.kind == Argument::Kind::tensor && asked.element == Element::boolean && asked.elements == 1;
      if (!one) throw BrokenFile(where + "jump): it does not ask a boolean");
      continue;
    }
    const OperatorRow& row = *rows[static_cast<size_t>(instruction.operation)];
    const std::string violation = row.violation(stack);
    if (!violation.empty()) throw BrokenFile(where + std::string(row.name) + "): " + violation);
    size_t outputs = 0;
    for (const Parameter& parameter : row.parameters) outputs += parameter.output;
    for (size_t i = instruction.arguments.size() - outputs; i < instruction.arguments.size(); ++i) {
      const FileValue& value = values[static_cast<size_t>(instruction.arguments[i])];
      const bool tensor = value.argument.kind == Argument::Kind::tensor;
      if (tensor && value.offset == FileValue::kOutside)
        throw BrokenFile(where + std::string(row.name) + "): it writes an input");
    }
  }
}

}  // namespace profl
