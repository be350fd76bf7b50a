#include "testing/damage.h"

#include <cstring>
#include <utility>

namespace profl {
namespace {

constexpr int64_t kTelling[] = {0,       1,       -1,      2,        3,           4,         5,         7,
                                8,       15,      16,      17,       31,          32,        33,        64,
                                127,     128,     255,     256,      1000,        4096,      -2,        -8,
                                1 << 16, 1 << 20, 1 << 24, 1L << 31, -(1L << 31), INT32_MAX, INT64_MAX, INT64_MIN};
constexpr double kNumbers[] = {0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 1e-30, 1e30, 2147483647.0, 1e300, -1e300};

template <typename Values>
auto one_of(const Values& values, std::mt19937_64& random) {
  return values[random() % std::size(values)];
}

}  // namespace

// The fields are numbered as in ExecuTorch's schema, see engine/program_file.cpp.
Damage::Damage(std::vector<uint8_t> program) : program_(std::move(program)) {
  uint64_t left = UINT64_MAX;
  const Bytes bytes(program_.data(), program_.size(), &left);
  const Table root(bytes, bytes.at<uint32_t>(0)), plan = root.tables(1).at(0);
  for (const Table& value : plan.tables(2)) find_value(value);
  find_list(plan, 3, 4, Kind::value);
  find_list(plan, 4, 4, Kind::value);
  for (const Table& chain : plan.tables(5)) {
    find(chain.place_of_list(2) - 4, 4, Kind::length);
    for (const Table& instruction : chain.tables(2)) find_instruction(instruction);
  }
  find_list(plan, 8, 8, Kind::arena);
}

void Damage::find(uint64_t place, unsigned bytes, Kind kind) {
  if (place != 0) spots_.push_back({place, bytes, kind});
}

void Damage::find_list(const Table& table, int field, unsigned bytes, Kind kind) {
  const uint64_t first = table.place_of_list(field);
  if (first == 0) return;
  find(first - 4, 4, Kind::length);
  for (size_t i = 0; i < table.count(field); ++i) find(first + i * bytes, bytes, kind);
}

void Damage::find_value(const Table& value) {
  const auto type = value.number<uint8_t>(0);
  find(value.place_of(0), 1, Kind::type);
  const Table content = value.table(1);
  if (type == 2) find(content.place_of(0), 8, Kind::integer);
  if (type == 3) find(content.place_of(0), 1, Kind::other);
  if (type == 4) find(content.place_of(0), 8, Kind::number);
  if (type == 7) find_list(content, 0, 8, Kind::value);
  if (type != 5) return;
  for (int field : {0, 4, 7, 8}) find(content.place_of(field), 1, Kind::other);
  for (int field : {1, 5}) find(content.place_of(field), 4, Kind::other);
  find_list(content, 2, 4, Kind::size);
  find_list(content, 3, 1, Kind::other);
  if (!content.has(6)) return;
  const Table place = content.table(6);
  find(place.place_of(0), 4, Kind::other);
  find(place.place_of(1), 4, Kind::place);
  find(place.place_of(2), 4, Kind::other);
}

void Damage::find_instruction(const Table& instruction) {
  find(instruction.place_of(0), 1, Kind::type);
  const Table call = instruction.table(1);
  if (instruction.number<uint8_t>(0) == 1) {
    find(call.place_of(0), 4, Kind::operation);
    find_list(call, 1, 4, Kind::value);
  } else {
    find(call.place_of(0), 4, Kind::value);
    find(call.place_of(1), 4, Kind::other);
  }
}

int64_t Damage::read(const std::vector<uint8_t>& from, const Spot& spot) const {
  int64_t value = 0;
  if (spot.bytes == 4) {
    int32_t word;
    std::memcpy(&word, from.data() + spot.place, 4);
    return word;
  }
  std::memcpy(&value, from.data() + spot.place, spot.bytes);
  return value;
}

void Damage::write(std::vector<uint8_t>& to, const Spot& spot, int64_t value) const {
  if (spot.place + spot.bytes <= to.size()) std::memcpy(to.data() + spot.place, &value, spot.bytes);
}

// Another value for one number: one that stands in another place of its kind, its neighbour, or a telling one.
void Damage::change_spot(std::vector<uint8_t>& program, Random& random) const {
  const Spot& spot = spots_[random() % spots_.size()];
  int64_t value = read(program_, spot);
  if (spot.kind == Kind::number && random() % 2 == 0) {
    const double number = one_of(kNumbers, random);
    std::memcpy(&value, &number, sizeof(value));
    return write(program, spot, value);
  }
  switch (random() % 5) {
    case 0:
      value = one_of(kTelling, random);
      break;
    case 1:
      value += random() % 2 == 0 ? 1 : -1;
      break;
    case 2:
      value = random() % 2 == 0 ? static_cast<int64_t>(static_cast<uint64_t>(value) * 2) : value / 2;
      break;
    default: {
      const Spot& other = spots_[random() % spots_.size()];
      for (size_t i = 0; i < 64; ++i) {
        const Spot& candidate = spots_[random() % spots_.size()];
        if (candidate.kind == spot.kind) return write(program, spot, read(program_, candidate));
      }
      value = read(program_, other);
    }
  }
  write(program, spot, value);
}

// One extent wherever it stands, so that the tensors still agree: 8 channels become 5.
void Damage::change_sizes(std::vector<uint8_t>& program, Random& random) const {
  std::vector<const Spot*> sizes;
  for (const Spot& spot : spots_) {
    if (spot.kind == Kind::size) sizes.push_back(&spot);
  }
  if (sizes.empty()) return;
  const int64_t from = read(program_, *sizes[random() % sizes.size()]);
  const int64_t to = random() % 4 == 0 ? one_of(kTelling, random) : 1 + static_cast<int64_t>(random() % (from + 2));
  for (const Spot& spot : spots_) {
    const bool also = spot.kind == Kind::size || (spot.kind == Kind::integer && random() % 2 == 0);
    if (also && read(program_, spot) == from) write(program, spot, to);
  }
}

void Damage::change_bytes(std::vector<uint8_t>& program, Random& random) const {
  const size_t place = random() % program.size();
  switch (random() % 4) {
    case 0:
      program[place] = static_cast<uint8_t>(program[place] ^ 1u << random() % 8);
      break;
    case 1:
      program[place] = static_cast<uint8_t>(random());
      break;
    case 2:
      write(program, {place / 4 * 4, 4, Kind::other}, one_of(kTelling, random));
      break;
    default:
      if (random() % 16 == 0) program.resize(1 + place);
  }
}

std::vector<uint8_t> Damage::damaged(Random& random) const {
  std::vector<uint8_t> program = program_;
  constexpr uint64_t kChanges[] = {1, 1, 1, 1, 2, 2, 3, 6};
  for (uint64_t left = one_of(kChanges, random); left > 0; --left) {
    const uint64_t way = random() % 16;
    if (way < 3) {
      change_bytes(program, random);
    } else if (way < 6) {
      change_sizes(program, random);
    } else {
      change_spot(program, random);
    }
  }
  return program;
}

}  // namespace profl
