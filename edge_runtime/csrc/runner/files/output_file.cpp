#include "runner/files/output_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "runner/files/failure.h"

namespace profl {
namespace {

constexpr mode_t kNewFile = 0666;
constexpr size_t kRandomDigits = 8;

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

std::string name_of(const std::string& path) { return path.substr(path.rfind('/') + 1); }

// What names of temporary files begin with; eight characters follow. As device_profiles/outputs.py names them.
std::string temporary_start(const std::string& path) { return "." + name_of(path) + "."; }

std::string temporary_name(const std::string& path) {
  uint32_t number = 0;
  if (getrandom(&number, sizeof(number), 0) != sizeof(number)) number = static_cast<uint32_t>(getpid());
  char digits[kRandomDigits + 1];
  std::snprintf(digits, sizeof(digits), "%08x", number);
  return folder_of(path) + "/" + temporary_start(path) + digits;
}

bool is_temporary(const std::string& name, const std::string& path) {
  const std::string start = temporary_start(path);
  if (name.size() != start.size() + kRandomDigits || name.compare(0, start.size(), start) != 0) return false;
  return name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_", start.size()) == std::string::npos;
}

}  // namespace

void remove_leftovers(const std::string& path) {
  DIR* const folder = opendir(folder_of(path).c_str());
  if (folder == nullptr) return;
  while (const dirent* entry = readdir(folder)) {
    if (is_temporary(entry->d_name, path)) unlinkat(dirfd(folder), entry->d_name, 0);
  }
  closedir(folder);
}

std::string checked_output(const std::string& path) {
  struct stat about = {};
  const std::string option = "-o " + path + ": ";
  if (path.empty() || path.back() == '/') refuse(option + "is no name of a file; give one");
  if (stat(path.c_str(), &about) != 0) {
    if (errno != ENOENT) refuse(option + "cannot be written: " + std::strerror(errno) + "; choose another place");
    if (lstat(path.c_str(), &about) == 0) refuse(option + "is a link that leads nowhere; remove it");
    if (access(folder_of(path).c_str(), W_OK) != 0) {
      refuse(option + "its folder cannot be written: " + std::strerror(errno) + "; make it, or choose another place");
    }
    return path;
  }
  if (!S_ISREG(about.st_mode)) refuse(option + "is not a regular file; give the name of a file");
  char real[PATH_MAX];
  return realpath(path.c_str(), real) == nullptr ? path : real;
}

OutputFile::OutputFile(const std::string& path)
    : path_(path),
      temporary_(temporary_name(path)),
      file_(open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, kNewFile)) {
  if (file_ < 0) failed();
}

OutputFile::~OutputFile() {
  if (file_ < 0) return;
  close(file_);
  unlink(temporary_.c_str());
}

void OutputFile::failed() const { fail(path_ + ": " + std::strerror(errno)); }

void OutputFile::write(const void* data, size_t bytes) {
  for (const char* from = static_cast<const char*>(data); bytes > 0;) {
    const ssize_t count = ::write(file_, from, bytes);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) failed();
    from += count;
    bytes -= static_cast<size_t>(count);
  }
}

void OutputFile::finish() {
  if (fsync(file_) != 0 && errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP) failed();
  if (rename(temporary_.c_str(), path_.c_str()) != 0) failed();
  close(file_);
  file_ = -1;
}

OutputLock::OutputLock(const std::string& output) : path_(output + ".lock") {
  for (;;) {
    struct stat there = {};
    if (lstat(path_.c_str(), &there) == 0 && (!S_ISREG(there.st_mode) || there.st_size != 0)) {
      refuse("-o " + output + ": " + path_ + " is not a lock file of this program; move it away");
    }
    file_ = open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, kNewFile);
    if (file_ < 0) refuse("-o " + output + ": cannot be written: " + std::strerror(errno));
    if (flock(file_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
      close(file_);
      refuse("-o " + output + ": another process is writing it; choose another output or wait");
    }
    // Whoever held it before may have removed the file between our opening and our locking.
    struct stat ours = {};
    fstat(file_, &ours);
    if (stat(path_.c_str(), &there) == 0 && there.st_ino == ours.st_ino && there.st_dev == ours.st_dev) return;
    close(file_);
  }
}

OutputLock::~OutputLock() {
  unlink(path_.c_str());
  close(file_);
}

void check_disk(const std::string& output, uint64_t bytes) {
  struct statvfs about = {};
  const std::string folder = folder_of(output);
  if (statvfs(folder.c_str(), &about) != 0 || about.f_blocks == 0) return;
  const uint64_t free = uint64_t{geteuid() == 0 ? about.f_bfree : about.f_bavail} * about.f_frsize;
  if (free >= bytes) return;
  char text[160];
  std::snprintf(text, sizeof(text), "the update and its checkpoints take %.1f MB, %.1f MB are free in ",
                static_cast<double>(bytes) / (1 << 20), static_cast<double>(free) / (1 << 20));
  fail("-o " + output + ": " + text + folder + "; make room there, or choose another place");
}

}  // namespace profl
