// planted NAME wrong|right: 0 if the result is as it should be and the stand-in saw no error. What a sanitizer finds
// ends the program otherwise.
#include <sluice_standin/control.h>

#include <cstdio>

#include "tests/planted/planted.h"

namespace sluice::planted {
namespace {

constexpr Bug bugs[] = {
    {"missing_block_barrier", missing_block_barrier},
    {"missing_warp_barrier", missing_warp_barrier},
    {"missing_event_wait", missing_event_wait},
    {"missing_synchronize", missing_synchronize},
    {"counter_without_event", counter_without_event},
    {"overrun_static_shared", overrun_static_shared},
    {"overrun_dynamic_shared", overrun_dynamic_shared},
    {"overrun_global", overrun_global},
    {"overrun_arena", overrun_arena},
    {"overrun_stack", overrun_stack},
    {"divergent_barrier", divergent_barrier},
    {"exited_lane", exited_lane},
    {"missing_wait_for_previous", missing_wait_for_previous},
    {"early_copy", early_copy},
    {"misaligned_access", misaligned_access},
    {"missing_async_wait", missing_async_wait},
    {"unwritten_shared", unwritten_shared},
};

int run(std::string_view name, bool wrong) {
  for (const Bug& bug : bugs) {
    if (bug.name != name) continue;
    const bool result = bug.run(wrong);
    if (!result) std::printf("wrong result\n");
    return result && standin::errors().empty() ? 0 : 1;
  }
  std::fprintf(stderr, "no bug of that name\n");
  return 2;
}

}  // namespace
}  // namespace sluice::planted

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  return sluice::planted::run(argv[1], std::string_view(argv[2]) == "wrong");
}
