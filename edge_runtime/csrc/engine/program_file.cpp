#include "engine/program_file.h"

#include <algorithm>
#include <optional>

#include "engine/flatbuffer.h"

namespace profl {
namespace {

// Positions in ExecuTorch's schema (schema/program.fbs).
enum ProgramField {
  kVersion,
  kPlans,
  kConstants,
  kDelegateData,
  kSegments,
  kConstantSegment,
  kMutableData,
  kNamedData
};
enum PlanField {
  kPlanName,
  kContainer,
  kValues,
  kInputs,
  kOutputs,
  kChains,
  kOperators,
  kDelegates,
  kBuffers,
  kDevices
};
enum TensorField { kType, kStorage, kSizes, kOrder, kGradient, kData, kPlace, kLayout, kDynamism, kExtra };
enum ValueType : uint8_t { kNull = 1, kInt, kBool, kDouble, kTensor, kString, kIntList };
enum InstructionType : uint8_t { kKernelCall = 1, kJumpFalseCall = 4 };

constexpr uint32_t kArenaMemory = 1;
constexpr size_t kMostBytes = size_t{16} << 20;  // programs of 200 layers have a hundred thousand

[[noreturn]] void refuse(const std::string& what) { throw BrokenFile(what); }

void require(bool holds, const char* what) {
  if (!holds) throw BrokenFile(what);
}

std::optional<Element> element_of(int8_t scalar_type) {
  switch (scalar_type) {
    case 4:
      return Element::int64;
    case 6:
      return Element::float32;
    case 11:
      return Element::boolean;
    case 15:
      return Element::bfloat16;
    default:
      return std::nullopt;
  }
}

class Reader {
 public:
  Reader(const uint8_t* data, size_t size) : left_(kMostRepetition * size), bytes_(data, size, &left_) {
    require(size <= kMostBytes, "it is too large for a program");
  }

  ProgramFile read() {
    check_header();
    const Table program(bytes_, bytes_.at<uint32_t>(0));
    require(program.number<uint32_t>(kVersion) == 0, "it has another version of the format");
    for (int field : {kDelegateData, kMutableData, kNamedData}) {
      require(program.count(field) == 0, "it has data of its own beside its instructions");
    }
    // ExecuTorch's writer leaves one empty segment for no constants.
    for (const Table& segment : program.tables(kSegments)) {
      require(segment.number<uint64_t>(0) == 0 && segment.number<uint64_t>(1) == 0, "it has segments behind it");
    }
    if (program.has(kConstantSegment)) {
      const std::vector<uint64_t> offsets = program.table(kConstantSegment).numbers<uint64_t>(1);
      require(offsets.size() <= 1 && (offsets.empty() || offsets[0] == 0), "it has constants");
    }
    for (const Table& constant : program.tables(kConstants)) require(constant.count(0) == 0, "it has constants");
    const std::vector<Table> plans = program.tables(kPlans);
    require(plans.size() == 1 && plans[0].text(kPlanName) == "forward", "it does not have one method 'forward'");
    read_plan(plans[0]);
    return std::move(file_);
  }

 private:
  void check_header() const {
    require(bytes_.text(4, 4) == "ET12", "it has no ExecuTorch identifier");
    if (bytes_.text(8, 2) != "eh") return;
    // ExecuTorch's extended header: its length, the program's size, and where segments begin.
    require(bytes_.text(8, 4) == "eh00" && bytes_.at<uint32_t>(12) >= 24, "its extended header is not known");
    require(bytes_.at<uint64_t>(16) <= bytes_.size() && bytes_.at<uint64_t>(24) == 0, "it has segments behind it");
    require(bytes_.at<uint32_t>(12) < 32 || bytes_.at<uint64_t>(32) == 0, "it has segments behind it");
  }

  void read_plan(const Table& plan) {
    require(plan.count(kDelegates) == 0, "it has parts for other backends");
    require(plan.count(kDevices) == 0, "it has memory of other devices");
    const std::vector<int64_t> buffers = plan.numbers<int64_t>(kBuffers);
    require(buffers.size() == 2 && buffers[0] == 0, "it does not have one arena");
    require(buffers[1] >= 0, "its arena has a negative size");
    file_.arena_bytes = static_cast<uint64_t>(buffers[1]);
    const std::vector<Table> values = plan.tables(kValues);
    file_.values.reserve(values.size());
    for (const Table& value : values) file_.values.push_back(read_value(value));
    resolve_lists();
    file_.inputs = plan.numbers<int32_t>(kInputs);
    file_.outputs = plan.numbers<int32_t>(kOutputs);
    for (const Table& operation : plan.tables(kOperators)) file_.operators.push_back(read_operator(operation));
    const std::vector<Table> chains = plan.tables(kChains);
    require(chains.size() == 1, "it does not have one list of instructions");
    require(chains[0].count(0) == 0 && chains[0].count(1) == 0, "its instructions have inputs of their own");
    const std::vector<Table> instructions = chains[0].tables(2);
    require(!instructions.empty(), "it has no instructions");
    for (const Table& instruction : instructions) read_instruction(instruction, instructions.size());
    check_values();
  }

  FileValue read_value(const Table& table) {
    FileValue value;
    Argument& argument = value.argument;
    const auto type = table.number<uint8_t>(0);
    if (type < kNull || type > kIntList || type == kString) refuse("a value is of a kind that no instruction takes");
    const Table content = table.table(1);
    switch (type) {
      case kInt:
        argument.kind = Argument::Kind::integer;
        argument.integer = content.number<int64_t>(0);
        break;
      case kBool:
        argument.kind = Argument::Kind::flag;
        require(content.number<uint8_t>(0) <= 1, "a boolean is neither true nor false");
        argument.integer = content.number<uint8_t>(0);
        break;
      case kDouble:
        argument.kind = Argument::Kind::number;
        argument.number = content.number<double>(0);
        break;
      case kIntList:
        argument.kind = Argument::Kind::integers;
        argument.items = content.numbers<int64_t>(0);
        break;
      case kTensor:
        read_tensor(content, value);
        break;
      default:
        break;
    }
    return value;
  }

  // The integers of a list are numbers of values.
  void resolve_lists() {
    for (FileValue& value : file_.values) {
      if (value.argument.kind != Argument::Kind::integers) continue;
      for (int64_t& item : value.argument.items) {
        require(item >= 0 && item < static_cast<int64_t>(file_.values.size()),
                "a list names values that are not there");
        const Argument& named = file_.values[static_cast<size_t>(item)].argument;
        require(named.kind == Argument::Kind::integer, "a list of integers names another value");
        item = named.integer;
      }
    }
  }

  void read_tensor(const Table& table, FileValue& value) const {
    static const OperatorLimits limits = operator_limits();
    Argument& argument = value.argument;
    argument.kind = Argument::Kind::tensor;
    const std::optional<Element> element = element_of(table.number<int8_t>(kType));
    require(element.has_value(), "a tensor is of a type that no operator takes");
    argument.element = *element;
    const std::vector<int32_t> sizes = table.numbers<int32_t>(kSizes);
    const std::vector<uint8_t> order = table.numbers<uint8_t>(kOrder);
    require(static_cast<int64_t>(sizes.size()) <= limits.rank, "a tensor has too many dimensions");
    require(order.size() == sizes.size(), "a tensor is not contiguous");
    argument.elements = 1;
    for (size_t d = 0; d < sizes.size(); ++d) {
      require(order[d] == d, "a tensor is not contiguous");
      require(sizes[d] >= 1, "a tensor has no elements");
      require(argument.elements <= limits.elements / sizes[d], "a tensor has too many elements");
      argument.elements *= sizes[d];
      argument.items.push_back(sizes[d]);
    }
    require(table.number<int32_t>(kStorage) == 0 && table.number<int8_t>(kLayout) == 0, "a tensor is not contiguous");
    require(table.number<uint8_t>(kGradient) == 0, "a tensor asks for a gradient");
    require(table.number<uint32_t>(kData) == 0, "a tensor is a constant");
    require(table.number<int8_t>(kDynamism) == 0, "a tensor's shape is not fixed");
    if (table.has(kPlace)) place(table.table(kPlace), value);
    if (table.has(kExtra)) name(table.table(kExtra), value);
  }

  void place(const Table& allocation, FileValue& value) const {
    require(allocation.number<uint32_t>(0) == kArenaMemory, "a tensor is placed outside of the arena");
    const uint64_t bytes = static_cast<uint64_t>(value.argument.elements * bytes_of(value.argument.element));
    const uint64_t offset = allocation.number<uint32_t>(1) | uint64_t{allocation.number<uint32_t>(2)} << 32;
    require(bytes <= file_.arena_bytes && offset <= file_.arena_bytes - bytes,
            "a tensor is placed outside of the arena");
    require(offset % static_cast<uint64_t>(bytes_of(value.argument.element)) == 0, "a tensor is not aligned");
    value.offset = static_cast<int64_t>(offset);
  }

  static void name(const Table& extra, FileValue& value) {
    require(extra.number<uint64_t>(0) == 0 && extra.number<int8_t>(2) == 0, "a tensor has data of its own");
    require(extra.number<int8_t>(3) == 0 && extra.number<int8_t>(4) == 0, "a tensor is of another device");
    const std::string_view text = extra.text(1);
    require(!text.empty() && text.size() <= kLongestName, "a tensor has no usable name");
    require(text.find('\0') == std::string_view::npos, "a tensor has no usable name");
    require(value.offset != FileValue::kOutside, "a tensor with a name is outside of the arena");
    value.name = text;
  }

  static std::string read_operator(const Table& operation) {
    const std::string name(operation.text(0)), overload(operation.text(1));
    const std::string shown = overload.empty() ? name : name + "." + overload;
    if (name.rfind(kNamespace, 0) != 0 || overload != "out") throw MissingOperator(shown.substr(0, kLongestName));
    return name.substr(sizeof(kNamespace) - 1);
  }

  void read_instruction(const Table& table, size_t end) {
    FileInstruction instruction{};
    const auto type = table.number<uint8_t>(0);
    require(type == kKernelCall || type == kJumpFalseCall, "an instruction is neither a kernel call nor a jump");
    const Table call = table.table(1);
    const int32_t first = call.number<int32_t>(0);
    if (type == kJumpFalseCall) {
      require(call.number<int32_t>(1) == static_cast<int64_t>(end), "a jump does not go to the end");
      instruction.operation = FileInstruction::kJump;
      instruction.arguments = {first};
    } else {
      require(first >= 0 && first < static_cast<int64_t>(file_.operators.size()), "an operator is not there");
      instruction.operation = first;
      instruction.arguments = call.numbers<int32_t>(1);
    }
    for (int32_t argument : instruction.arguments) require(is_value(argument), "an argument is not there");
    file_.instructions.push_back(std::move(instruction));
  }

  bool is_value(int32_t index) const { return index >= 0 && index < static_cast<int64_t>(file_.values.size()); }

  // Tensors lie in the arena or are inputs, which the caller places; no name is there twice.
  void check_values() const {
    std::vector<bool> given(file_.values.size());
    for (int32_t input : file_.inputs) {
      require(is_value(input) && !given[static_cast<size_t>(input)], "an input is not there, or there twice");
      const FileValue& value = file_.values[static_cast<size_t>(input)];
      require(value.argument.kind == Argument::Kind::tensor, "an input is no tensor");
      require(value.offset == FileValue::kOutside, "an input has a place of its own");
      given[static_cast<size_t>(input)] = true;
    }
    std::vector<std::string_view> names;
    for (size_t i = 0; i < file_.values.size(); ++i) {
      const FileValue& value = file_.values[i];
      const bool placed = value.offset != FileValue::kOutside || given[i];
      require(value.argument.kind != Argument::Kind::tensor || placed, "a tensor has no place");
      if (!value.name.empty()) names.push_back(value.name);
    }
    std::sort(names.begin(), names.end());
    require(std::adjacent_find(names.begin(), names.end()) == names.end(), "two tensors have one name");
    require(!file_.outputs.empty(), "it puts nothing out");
    for (int32_t output : file_.outputs) {
      require(is_value(output) && file_.values[static_cast<size_t>(output)].offset != FileValue::kOutside,
              "an output is no tensor in the arena");
    }
  }

  uint64_t left_;
  const Bytes bytes_;
  ProgramFile file_;
};

}  // namespace

ProgramFile ProgramFile::read(const uint8_t* data, size_t size) { return Reader(data, size).read(); }

std::vector<size_t> ProgramFile::uses(size_t input) const {
  std::vector<size_t> found;
  for (size_t at = 0; at < instructions.size(); ++at) {
    const std::vector<int32_t>& arguments = instructions[at].arguments;
    if (std::find(arguments.begin(), arguments.end(), inputs[input]) != arguments.end()) found.push_back(at);
  }
  return found;
}

}  // namespace profl
