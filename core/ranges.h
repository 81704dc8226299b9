// Ranges: names for what a thread does now, told to a profiler that is attached to this process, such as Nsight
// Systems. Whether there is one is the implementation's to know: calls cost next to nothing without it.
//
// Threads: any. Ranges belong to the thread that begins them: they nest, and each begin() has its end() there.
#pragma once

namespace sluice {

class Ranges {
 public:
  virtual ~Ranges() = default;
  virtual void begin(const char* name) = 0;  // `name` may go once this returns
  virtual void end() = 0;                    // of the range that began last
};

}  // namespace sluice
