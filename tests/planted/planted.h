// Bugs planted to see that something finds them: each is a pair, wrong and right, of which the wrong one must fail in
// the builds that can see it and the right one must not, in any build.
#pragma once

#include <string_view>

namespace sluice::planted {

struct Bug {
  std::string_view name;
  bool (*run)(bool wrong);  // false: the result is wrong
};

bool missing_block_barrier(bool wrong);
bool missing_warp_barrier(bool wrong);
bool missing_event_wait(bool wrong);
bool missing_synchronize(bool wrong);
bool counter_without_event(bool wrong);
bool overrun_static_shared(bool wrong);
bool overrun_dynamic_shared(bool wrong);
bool overrun_global(bool wrong);
bool overrun_arena(bool wrong);
bool overrun_stack(bool wrong);
bool divergent_barrier(bool wrong);
bool exited_lane(bool wrong);
bool missing_wait_for_previous(bool wrong);
bool early_copy(bool wrong);
bool misaligned_access(bool wrong);
bool missing_async_wait(bool wrong);
bool unwritten_shared(bool wrong);

}  // namespace sluice::planted
