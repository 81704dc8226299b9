// Ctrl-C and SIGTERM as something a command can act upon.
//
// While an Interrupts lives, the two signals are noted instead of ending the process; while a
// CancelOnInterrupt lives they also cancel its session's running call. The third signal that nobody took
// ends the process as if there were no handler. Any thread may receive a signal; at most one of each
// object exists at a time, in the main thread.
#pragma once

#include "sluice/engine.h"

namespace sluice::apps {

class Interrupts {
 public:
  Interrupts();
  ~Interrupts();
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;

  // Readable while a signal is pending; -1 if no pipe could be made.
  int fd() const;

  // The signal that came last, 0 for none; take() forgets it.
  int pending() const;
  int take();
};

class CancelOnInterrupt {
 public:
  explicit CancelOnInterrupt(Session& session);
  ~CancelOnInterrupt();
  CancelOnInterrupt(const CancelOnInterrupt&) = delete;
  CancelOnInterrupt& operator=(const CancelOnInterrupt&) = delete;
};

// The signal that came last while any Interrupts lived, 0 for none.
int newest_interrupt();

// The exit code of a command that a signal ended, as shells write it, and what to call the signal.
int exit_code(int signal);
const char* signal_name(int signal);

}  // namespace sluice::apps
