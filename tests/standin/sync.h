// Locks, waiting, time and shared ownership of the stand-in, made of system calls and compiler builtins only, so that
// ThreadSanitizer sees none of it: a stream's own lock must not order what CUDA leaves unordered.
#pragma once

#include <cstdint>
#include <utility>

namespace standin {

class Lock {
 public:
  void lock();
  void unlock();

 private:
  uint32_t state_ = 0;  // 0 free, 1 held, 2 held and somebody sleeps
};

class Guard {
 public:
  explicit Guard(Lock& lock) : lock_(lock) { lock_.lock(); }
  ~Guard() { lock_.unlock(); }
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;

 private:
  Lock& lock_;
};

// To sleep until something that a Lock guards may have changed. Both are called with the lock held.
class Wakeup {
 public:
  void wait(Lock& lock);
  void notify_all();

 private:
  uint32_t generation_ = 0;
  uint32_t sleepers_ = 0;
};

uint64_t now_ns();
void sleep_until_ns(uint64_t time);

// An object that is deleted with its last Ref.
class Counted {
 public:
  Counted() = default;
  virtual ~Counted() = default;
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;

 private:
  template <class T>
  friend class Ref;
  uint32_t references_ = 0;
};

template <class T>
class Ref {
 public:
  Ref() = default;
  explicit Ref(T* object) : object_(object) { add(); }
  Ref(const Ref& other) : object_(other.object_) { add(); }
  Ref(Ref&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  Ref& operator=(Ref other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~Ref() {
    if (object_ != nullptr && __atomic_sub_fetch(&object_->references_, 1, __ATOMIC_ACQ_REL) == 0) delete object_;
  }
  template <class Base>
  operator Ref<Base>() const {
    return Ref<Base>(object_);
  }

  T* get() const { return object_; }
  T* operator->() const { return object_; }
  T& operator*() const { return *object_; }
  explicit operator bool() const { return object_ != nullptr; }

 private:
  void add() {
    if (object_ != nullptr) __atomic_add_fetch(&object_->references_, 1, __ATOMIC_RELAXED);
  }
  T* object_ = nullptr;
};

}  // namespace standin
