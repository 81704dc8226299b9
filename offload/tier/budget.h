// Budgets: hard limits on bytes, and the charges against them.
//
// A Budget never lets the sum of its Reservations exceed its limit. A Reservation is a charge: move-only,
// returned when it dies. No memory exists without one. A Budget must outlive its Reservations.
// Threads: any.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include "sluice/status.h"

namespace sluice::tier {

class Budget;

class Reservation {
 public:
  Reservation() = default;
  Reservation(Reservation&& other) noexcept
      : budget_(std::exchange(other.budget_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Reservation& operator=(Reservation&& other) noexcept;
  ~Reservation() { reset(); }

  uint64_t bytes() const { return bytes_; }
  void reset();

 private:
  friend class Budget;
  Reservation(Budget* budget, uint64_t bytes) : budget_(budget), bytes_(bytes) {}
  Budget* budget_ = nullptr;
  uint64_t bytes_ = 0;
};

class Budget {
 public:
  Budget(std::string name, uint64_t limit) : name_(std::move(name)), limit_(limit) {}
  Budget(const Budget&) = delete;
  Budget& operator=(const Budget&) = delete;

  // over_budget says what was wanted, how much, and how much is left of which budget.
  Result<Reservation> reserve(uint64_t bytes, std::string_view what);

  // Another limit from now on. over_budget, and nothing has changed, where more is reserved than that.
  Status set_limit(uint64_t limit);

  const std::string& name() const { return name_; }
  uint64_t limit() const;
  uint64_t used() const;
  uint64_t peak() const;  // the most that was ever reserved at once
  uint64_t left() const;

 private:
  friend class Reservation;
  void give_back(uint64_t bytes);

  const std::string name_;
  mutable std::mutex mutex_;
  uint64_t limit_;
  uint64_t used_ = 0, peak_ = 0;
};

}  // namespace sluice::tier
