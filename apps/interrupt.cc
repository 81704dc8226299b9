#include "apps/interrupt.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>

namespace sluice::apps {
namespace {

constexpr int patience = 3;  // signals until the process ends

// All that the handler touches; lock-free, so safe in it.
std::atomic<Session*> target{nullptr};
std::atomic<int> handlers_running{0};
std::atomic<int> last_signal{0};
std::atomic<int> newest_signal{0};  // not forgotten by take()
std::atomic<int> untaken{0};
std::array<std::atomic<int>, 2> pipe_ends{-1, -1};

std::array<struct sigaction, 2> previous;
constexpr std::array<int, 2> handled{SIGINT, SIGTERM};

void on_signal(int signal) {
  const int saved = errno;
  handlers_running.fetch_add(1);
  last_signal.store(signal);
  newest_signal.store(signal);
  if (untaken.fetch_add(1) + 1 >= patience) {
    ::signal(signal, SIG_DFL);
    ::raise(signal);
  }
  if (Session* session = target.load()) session->cancel();
  const char byte = 0;
  const ssize_t ignored = ::write(pipe_ends[1].load(), &byte, 1);
  (void)ignored;
  handlers_running.fetch_sub(1);
  errno = saved;
}

}  // namespace

Interrupts::Interrupts() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0) {
    pipe_ends[0].store(ends[0]);
    pipe_ends[1].store(ends[1]);
  }
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  ::sigemptyset(&action.sa_mask);
  for (size_t i = 0; i < handled.size(); ++i) ::sigaction(handled[i], &action, &previous[i]);
}

Interrupts::~Interrupts() {
  for (size_t i = 0; i < handled.size(); ++i) ::sigaction(handled[i], &previous[i], nullptr);
  while (handlers_running.load() != 0) ::usleep(100);
  take();
  for (auto& end : pipe_ends) {
    const int fd = end.exchange(-1);
    if (fd >= 0) ::close(fd);
  }
}

int Interrupts::fd() const { return pipe_ends[0].load(); }

int Interrupts::pending() const { return last_signal.load(); }

int Interrupts::take() {
  std::array<char, 64> bytes;
  while (::read(fd(), bytes.data(), bytes.size()) > 0) {
  }
  untaken.store(0);
  return last_signal.exchange(0);
}

CancelOnInterrupt::CancelOnInterrupt(Session& session) { target.store(&session); }

CancelOnInterrupt::~CancelOnInterrupt() {
  target.store(nullptr);
  while (handlers_running.load() != 0) ::usleep(100);
}

int newest_interrupt() { return newest_signal.load(); }

int exit_code(int signal) { return 128 + signal; }

const char* signal_name(int signal) { return signal == SIGINT ? "Ctrl-C" : "SIGTERM"; }

}  // namespace sluice::apps
