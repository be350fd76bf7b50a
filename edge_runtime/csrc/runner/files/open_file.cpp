#include "runner/files/open_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "runner/files/failure.h"
#include "runner/files/sha256.h"

namespace profl {
namespace {

constexpr size_t kPiece = size_t{64} << 10;

}  // namespace

OpenFile::OpenFile(const std::string& path) : path_(path), file_(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
  struct stat about = {};
  if (file_ < 0 || fstat(file_, &about) != 0) refuse(path + ": " + std::strerror(errno));
  if (S_ISDIR(about.st_mode)) {
    close(file_);
    refuse(path + ": is a folder; give the name of a file");
  }
  size_ = static_cast<uint64_t>(about.st_size);
}

OpenFile::~OpenFile() {
  if (file_ >= 0) close(file_);
}

bool OpenFile::fill(void* to, size_t bytes, uint64_t offset) const {
  for (size_t done = 0; done < bytes;) {
    const ssize_t count = pread(file_, static_cast<char*>(to) + done, bytes - done, static_cast<off_t>(offset + done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail(path_ + ": " + std::strerror(errno));
    if (count == 0) return false;
    done += static_cast<size_t>(count);
  }
  return true;
}

std::string OpenFile::read(uint64_t offset, size_t bytes) const {
  if (offset >= size_) return {};
  std::string text(static_cast<size_t>(std::min<uint64_t>(bytes, size_ - offset)), '\0');
  if (!fill(text.data(), text.size(), offset)) fail(path_ + ": became shorter while it was read");
  return text;
}

void OpenFile::pieces(uint64_t offset, uint64_t bytes, const std::function<void(const void*, size_t)>& take) const {
  while (bytes > 0) {
    const std::string piece = read(offset, static_cast<size_t>(std::min<uint64_t>(bytes, kPiece)));
    if (piece.empty()) fail(path_ + ": ends early");
    take(piece.data(), piece.size());
    offset += piece.size();
    bytes -= piece.size();
  }
}

std::string sha256_of(const OpenFile& file) {
  Sha256 digest;
  file.pieces(0, file.size(), [&](const void* data, size_t bytes) { digest.update(data, bytes); });
  return digest.hex();
}

}  // namespace profl
