#include "runner/inputs/npz.h"

#include <algorithm>
#include <cstdlib>

#include "runner/files/failure.h"

namespace profl {
namespace {

constexpr size_t kEndBytes = 22, kEntryBytes = 46, kLocalBytes = 30, kLongestComment = 65535;
constexpr uint64_t kLongestDirectory = uint64_t{1} << 24, kLongestHeader = uint64_t{1} << 16;
constexpr uint64_t kElsewhere = 0xFFFFFFFF;  // of archives above 4 GB
constexpr char kMagic[] = "\x93NUMPY";

uint64_t number(const std::string& bytes, size_t at, size_t count) {
  uint64_t value = 0;
  for (size_t i = count; i-- > 0;) value = value << 8 | static_cast<uint8_t>(bytes[at + i]);
  return value;
}

// What stands behind `'key':` in the header of an array.
std::string field(const std::string& header, const std::string& key) {
  const size_t at = header.find("'" + key + "':");
  if (at == std::string::npos) return "";
  const size_t start = header.find_first_not_of(' ', at + key.size() + 3);
  if (start == std::string::npos) return "";
  const char end = header[start] == '(' ? ')' : header[start] == '\'' ? '\'' : ',';
  const size_t stop = header.find(end, start + 1);
  return stop == std::string::npos ? "" : header.substr(start, stop - start + (end != ','));
}

}  // namespace

void NpzFile::broken(const std::string& what) const {
  refuse(file_.path() + ": not a readable npz file: " + what +
         "; write one with numpy.savez(FILE, images=..., labels=...)");
}

void NpzFile::read_directory() {
  const size_t tail_bytes = static_cast<size_t>(std::min<uint64_t>(file_.size(), kEndBytes + kLongestComment));
  const std::string tail = file_.read(file_.size() - tail_bytes, tail_bytes);
  const size_t end = tail.rfind("PK\x05\x06");
  if (end == std::string::npos || tail.size() - end < kEndBytes) broken("it is no zip archive");
  const uint64_t count = number(tail, end + 10, 2), bytes = number(tail, end + 12, 4),
                 offset = number(tail, end + 16, 4);
  if (offset == kElsewhere || bytes > kLongestDirectory) broken("its directory is too large");
  read_entries(file_.read(offset, static_cast<size_t>(bytes)), static_cast<size_t>(count));
}

void NpzFile::read_entries(const std::string& directory, size_t count) {
  size_t at = 0;
  for (size_t i = 0; i < count; ++i) {
    if (directory.size() < at + kEntryBytes || directory.compare(at, 4, "PK\x01\x02") != 0)
      broken("its directory is damaged");
    const size_t name_bytes = number(directory, at + 28, 2);
    const Member member{static_cast<unsigned>(number(directory, at + 10, 2)), number(directory, at + 24, 4),
                        number(directory, at + 42, 4)};
    if (directory.size() < at + kEntryBytes + name_bytes) broken("its directory is damaged");
    std::string name = directory.substr(at + kEntryBytes, name_bytes);
    if (name.size() > 4 && name.compare(name.size() - 4, 4, ".npy") == 0)
      members_[name.substr(0, name.size() - 4)] = member;
    at += kEntryBytes + name_bytes + number(directory, at + 30, 2) + number(directory, at + 32, 2);
  }
}

NpzArray NpzFile::array(const std::string& name) const {
  const auto found = members_.find(name);
  if (found == members_.end()) refuse(file_.path() + ": array '" + name + "' is missing");
  const Member& member = found->second;
  if (member.method != 0) {
    refuse(file_.path() + ": " + name +
           " is compressed; profl-train reads what numpy.savez writes, not savez_compressed");
  }
  if (member.bytes == kElsewhere || member.header == kElsewhere) broken(name + " is larger than 4 GB");
  const std::string local = file_.read(member.header, kLocalBytes);
  if (local.size() < kLocalBytes || local.compare(0, 4, "PK\x03\x04") != 0) broken(name + " is not where it should be");
  const uint64_t start = member.header + kLocalBytes + number(local, 26, 2) + number(local, 28, 2);
  const std::string prefix = file_.read(start, 12);
  if (prefix.size() < 12 || prefix.compare(0, 6, kMagic) != 0) broken(name + " is no array of numpy");
  const size_t length_bytes = prefix[6] == 1 ? 2 : 4;
  const uint64_t length = number(prefix, 8, length_bytes), data = 8 + length_bytes + length;
  if (length > kLongestHeader || data > member.bytes) broken("the header of " + name + " is too long");
  const std::string header = file_.read(start + 8 + length_bytes, static_cast<size_t>(length));
  const std::string type = field(header, "descr"), shape = field(header, "shape");
  if (type.size() < 5 || type[0] != '\'' || shape.empty() || shape[0] != '(')
    broken("the header of " + name + " is damaged");
  NpzArray array{type.substr(1, type.size() - 2), {}, start + data, member.bytes - data};
  uint64_t expected = std::strtoull(array.type.c_str() + 2, nullptr, 10);
  for (const char* text = shape.c_str() + 1; *text != ')' && *text != '\0';) {
    char* behind = nullptr;
    const long long extent = std::strtoll(text, &behind, 10);
    if (behind == text || extent < 0) broken("the shape of " + name + " is damaged");
    if (__builtin_mul_overflow(expected, static_cast<uint64_t>(extent), &expected)) broken(name + " is too large");
    array.shape.push_back(extent);
    text = behind + std::string(behind).find_first_not_of(", ");
  }
  if (expected != array.bytes || file_.size() < array.offset + array.bytes) {
    refuse(file_.path() + ": " + name + " holds " + std::to_string(array.bytes) + " bytes, its header describes " +
           std::to_string(expected));
  }
  if (field(header, "fortran_order") != "False" && array.shape.size() > 1) {
    refuse(file_.path() + ": " + name + " is in Fortran order; save numpy.ascontiguousarray(" + name + ")");
  }
  return array;
}

}  // namespace profl
