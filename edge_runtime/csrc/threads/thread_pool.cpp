#include "threads/thread_pool.h"

#include <pthread.h>
#include <sys/mman.h>

#include <atomic>
#include <new>
#include <stdexcept>
#include <vector>

namespace profl {
namespace {

constexpr int kPauses = 2000;  // some 20 to 80 microseconds
constexpr size_t kStackBytes = size_t{256} << 10;
// Around every buffer, of no memory: a kernel that leaves its buffer ends there instead of in another's. A multiple of
// every machine's pages.
constexpr size_t kGuardBytes = size_t{64} << 10;

float* new_buffer() {
  constexpr size_t kAll = kWorkspaceBytesPerThread + 2 * kGuardBytes;
  void* memory = mmap(nullptr, kAll, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  char* buffer = static_cast<char*>(memory) + kGuardBytes;
  if (mprotect(buffer, kWorkspaceBytesPerThread, PROT_READ | PROT_WRITE) != 0) {
    munmap(memory, kAll);
    throw std::bad_alloc();
  }
  return reinterpret_cast<float*>(buffer);
}

void delete_buffer(float* buffer) {
  munmap(reinterpret_cast<char*>(buffer) - kGuardBytes, kWorkspaceBytesPerThread + 2 * kGuardBytes);
}

class Pool {
 public:
  ~Pool() { resize(0); }

  void resize(int workers) {
    stop();
    for (float* buffer : buffers_) delete_buffer(buffer);
    buffers_.clear();
    if (workers == 0) return;
    for (int i = 0; i < workers; ++i) buffers_.push_back(new_buffer());
    start(workers - 1);
  }

  void release() {
    for (float* buffer : buffers_) madvise(buffer, kWorkspaceBytesPerThread, MADV_DONTNEED);
  }

  int size() const { return buffers_.empty() ? 1 : static_cast<int>(buffers_.size()); }

  void run(int64_t tasks, const std::function<void(int64_t, float*)>& body) {
    if (buffers_.empty()) resize(1);
    if (tasks <= 0) return;
    if (tasks == 1 || threads_.empty()) {
      for (int64_t task = 0; task < tasks; ++task) body(task, buffers_[0]);
      return;
    }
    body_ = &body;
    tasks_ = tasks;
    next_.store(0);
    open_.store(true);
    generation_.fetch_add(1);
    if (sleepers_.load() > 0) {
      pthread_mutex_lock(&mutex_);
      pthread_cond_broadcast(&wake_);
      pthread_mutex_unlock(&mutex_);
    }
    work(0);
    // A thread that did not get here in time finds the door closed and is not waited for.
    open_.store(false);
    if (soon([this] { return active_.load() == 0; })) return;
    pthread_mutex_lock(&mutex_);
    waited_for_.store(true);
    while (active_.load() > 0) pthread_cond_wait(&done_, &mutex_);
    waited_for_.store(false);
    pthread_mutex_unlock(&mutex_);
  }

 private:
  struct Start {
    Pool* pool;
    int index;
  };

  void start(int workers) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, kStackBytes);
    starts_.resize(workers);
    for (int i = 0; i < workers; ++i) {
      starts_[i] = {this, i + 1};
      pthread_t thread;
      if (pthread_create(&thread, &attributes, &Pool::entry, &starts_[i]) != 0) {
        pthread_attr_destroy(&attributes);
        throw std::runtime_error("cannot start a worker thread");
      }
      threads_.push_back(thread);
    }
    pthread_attr_destroy(&attributes);
  }

  void stop() {
    pthread_mutex_lock(&mutex_);
    stopping_.store(true);
    pthread_cond_broadcast(&wake_);
    pthread_mutex_unlock(&mutex_);
    for (pthread_t thread : threads_) pthread_join(thread, nullptr);
    threads_.clear();
    stopping_.store(false);
  }

  static void* entry(void* argument) {
    const Start start = *static_cast<Start*>(argument);
    start.pool->loop(start.index);
    return nullptr;
  }

  // Waits for what comes within microseconds without going to sleep; false if it did not come.
  template <typename Condition>
  static bool soon(const Condition& condition) {
    for (int i = 0; i < kPauses; ++i) {
      if (condition()) return true;
      pause();
    }
    return condition();
  }

  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("isb");  // yield does nothing on most cores
#endif
  }

  void loop(int index) {
    uint64_t seen = 0;
    while (next_generation(&seen)) {
      // The order matters: `run` closes first and looks at the active then.
      active_.fetch_add(1);
      if (open_.load()) work(index);
      if (active_.fetch_sub(1) == 1 && waited_for_.load()) {
        pthread_mutex_lock(&mutex_);
        pthread_cond_signal(&done_);
        pthread_mutex_unlock(&mutex_);
      }
    }
  }

  // Work follows work within microseconds during a step, and then not for long: sleep comes after a short wait.
  bool next_generation(uint64_t* seen) {
    const auto posted = [this, seen] { return generation_.load() != *seen || stopping_.load(); };
    if (!soon(posted)) {
      pthread_mutex_lock(&mutex_);
      sleepers_.fetch_add(1);
      while (!posted()) pthread_cond_wait(&wake_, &mutex_);
      sleepers_.fetch_sub(1);
      pthread_mutex_unlock(&mutex_);
    }
    *seen = generation_.load();
    return !stopping_.load();
  }

  void work(int index) {
    const int64_t tasks = tasks_;
    for (int64_t task = next_.fetch_add(1); task < tasks; task = next_.fetch_add(1)) (*body_)(task, buffers_[index]);
  }

  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t wake_ = PTHREAD_COND_INITIALIZER;
  pthread_cond_t done_ = PTHREAD_COND_INITIALIZER;
  std::vector<pthread_t> threads_;
  std::vector<Start> starts_;
  std::vector<float*> buffers_;
  const std::function<void(int64_t, float*)>* body_ = nullptr;
  std::atomic<int64_t> next_{0};
  int64_t tasks_ = 0;
  std::atomic<uint64_t> generation_{0};  // of posted work
  std::atomic<bool> open_{false};        // the posted work may be joined
  std::atomic<int> active_{0};           // threads that look for a task or run one
  std::atomic<int> sleepers_{0};
  std::atomic<bool> waited_for_{false};
  std::atomic<bool> stopping_{false};
};

Pool& pool() {
  static Pool instance;
  return instance;
}

}  // namespace

void set_thread_count(int count) {
  if (count < 1) throw std::invalid_argument("threads must be at least 1");
  if (count == pool().size() && count > 1) return;
  pool().resize(count);
}

void release_workspace() { pool().release(); }

int thread_count() { return pool().size(); }

void parallel_for(int64_t tasks, const std::function<void(int64_t, float*)>& body) { pool().run(tasks, body); }

}  // namespace profl
