// Memory of ExecuTorch's own structures.
#pragma once

#include <executorch/runtime/core/memory_allocator.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>
#include <vector>

namespace profl {

// The runtime's own structures (values, instructions): grows in small pieces, up to a limit, and is freed as a whole.
// Nothing is thrown: no exception may pass through the runtime's frames.
class PieceAllocator : public executorch::runtime::MemoryAllocator {
 public:
  PieceAllocator() : MemoryAllocator(0, nullptr) {}

  // What the structures of a file of this size may take.
  void limit_to_file(size_t file_bytes) { left_ = kPool + kStructuresPerByte * file_bytes; }

  void* allocate(size_t size, size_t alignment = kDefaultAlignment) override {
    if (size > left_ || alignment == 0 || alignment > kPool) return nullptr;
    left_ -= size;
    size_t at = (used_ + alignment - 1) / alignment * alignment;
    if (pieces_.empty() || at + size > capacity_) {
      const size_t wanted = size + alignment > kPool ? size + alignment : kPool;
      std::unique_ptr<uint8_t[]> piece(new (std::nothrow) uint8_t[wanted]);
      if (piece == nullptr || !keep(std::move(piece))) return nullptr;
      capacity_ = wanted;
      const size_t base = reinterpret_cast<size_t>(pieces_.back().get());
      at = (base + alignment - 1) / alignment * alignment - base;
    }
    used_ = at + size;
    return pieces_.back().get() + at;
  }

  void reset() override {
    pieces_.clear();
    used_ = capacity_ = 0;
  }

 private:
  static constexpr size_t kPool = size_t{64} << 10;
  // More than any program of the tests needs.
  static constexpr size_t kStructuresPerByte = 16;

  bool keep(std::unique_ptr<uint8_t[]> piece) {
    try {
      pieces_.push_back(std::move(piece));
      return true;
    } catch (const std::bad_alloc&) {
      return false;
    }
  }

  std::vector<std::unique_ptr<uint8_t[]>> pieces_;
  size_t used_ = 0, capacity_ = 0, left_ = 0;
};

}  // namespace profl
