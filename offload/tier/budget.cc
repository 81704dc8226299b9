#include "offload/tier/budget.h"

#include "core/bytes.h"
#include "core/error.h"

namespace sluice::tier {

Reservation& Reservation::operator=(Reservation&& other) noexcept {
  if (this != &other) {
    reset();
    budget_ = std::exchange(other.budget_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
  }
  return *this;
}

void Reservation::reset() {
  if (budget_ != nullptr) budget_->give_back(bytes_);
  budget_ = nullptr;
  bytes_ = 0;
}

Result<Reservation> Budget::reserve(uint64_t bytes, std::string_view what) {
  std::lock_guard lock(mutex_);
  if (bytes > limit_ - used_)
    return error(Code::over_budget, "budget {}: {} for {} does not fit, {} of {} are left", name_, format_size(bytes),
                 what, format_size(limit_ - used_), format_size(limit_));
  used_ += bytes;
  peak_ = used_ > peak_ ? used_ : peak_;
  return Reservation(this, bytes);
}

Status Budget::set_limit(uint64_t limit) {
  std::lock_guard lock(mutex_);
  if (used_ > limit)
    return error(Code::over_budget, "budget {}: {} are reserved, which is more than {}", name_, format_size(used_),
                 format_size(limit));
  limit_ = limit;
  return {};
}

uint64_t Budget::limit() const {
  std::lock_guard lock(mutex_);
  return limit_;
}

uint64_t Budget::used() const {
  std::lock_guard lock(mutex_);
  return used_;
}

uint64_t Budget::peak() const {
  std::lock_guard lock(mutex_);
  return peak_;
}

uint64_t Budget::left() const {
  std::lock_guard lock(mutex_);
  return limit_ - used_;
}

void Budget::give_back(uint64_t bytes) {
  std::lock_guard lock(mutex_);
  SLUICE_CHECK(bytes <= used_);
  used_ -= bytes;
}

}  // namespace sluice::tier
