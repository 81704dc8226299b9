// What a recorded event is: a point in a stream, which does not change when the event is recorded anew.
#pragma once

#include "tests/standin/stream.h"

namespace standin {

class Record : public Counted {
 public:
  Clock clock;
  bool done = false;  // this and the rest under the lock
  uint64_t time_ns = 0;
};

}  // namespace standin

struct CUevent_st {
  bool timed = true;
  standin::Ref<standin::Record> last;             // none: never recorded, which counts as done
  standin::Ref<standin::Operations> captured_in;  // recorded while this was captured
};
