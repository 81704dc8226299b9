// sluice: runs language models that are larger than the memory they are given.
//
// Exit codes: 0; 1 it failed, with one line on stderr; 2 usage; 130 and 143 stopped by Ctrl-C and SIGTERM.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <exception>
#include <new>
#include <string_view>

#include "apps/cli.h"
#include "apps/commands.h"
#include "apps/interrupt.h"
#include "apps/output.h"

namespace sluice::apps {
namespace {

// Files that are opened later must not become standard output; a closed pipe is an error of write(2).
void prepare_process() {
  int fd = 0;
  do {
    fd = ::open("/dev/null", O_RDWR);
  } while (fd >= 0 && fd <= STDERR_FILENO);
  if (fd >= 0) ::close(fd);
  ::signal(SIGPIPE, SIG_IGN);
}

Result<int> dispatch(const Invocation& in) {
  if (in.command == "run") return run(in.run);
  if (in.command == "chat") return chat(in.chat);
  if (in.command == "plan") return plan(in.plan);
  if (in.command == "tokenize") return tokenize(in.tokenize);
  if (in.command == "perplexity") return perplexity(in.perplexity);
  if (in.command == "bench") return bench(in.bench);
  if (in.command == "doctor") return doctor(in.doctor);
  return inspect(in.inspect);
}

int report(const Status& status) {
  print_error(status.message());
  if (status.code() != Code::cancelled) return 1;
  return exit_code(newest_interrupt() != 0 ? newest_interrupt() : SIGINT);
}

int command_main(int argc, char** argv) {
  const Parsed parsed = parse_command_line(argc, argv);
  if (parsed.done && parsed.exit_code != 0) {
    print_error(parsed.text);
    return parsed.exit_code;
  }
  if (parsed.done) {
    Output output;
    output.write(parsed.text);
    const auto code = output.finish();
    return code.ok() ? *code : report(code.status());
  }
  const auto code = dispatch(parsed.invocation);
  return code.ok() ? *code : report(code.status());
}

// Where there is no memory, none is taken to say so.
int out_of_memory() {
  constexpr std::string_view line = "sluice: out of memory\n";
  const ssize_t ignored = ::write(STDERR_FILENO, line.data(), line.size());
  (void)ignored;
  return 1;
}

// Destructors of a library may want memory too (nlohmann-json's do), where nothing can be thrown.
[[noreturn]] void on_terminate() {
  try {
    if (const std::exception_ptr error = std::current_exception()) std::rethrow_exception(error);
  } catch (const std::bad_alloc&) {
    ::_exit(out_of_memory());
  } catch (...) {  // a programmer's error
  }
  std::abort();
}

int guarded_main(int argc, char** argv) {
  try {
    return command_main(argc, argv);
  } catch (const std::bad_alloc&) {
    return out_of_memory();
  } catch (const std::exception& error) {
    print_error(error.what());
    return 1;
  }
}

}  // namespace
}  // namespace sluice::apps

int main(int argc, char** argv) {
  using namespace sluice::apps;
  prepare_process();
  std::set_terminate(on_terminate);
  try {
    return guarded_main(argc, argv);
  } catch (const std::bad_alloc&) {  // while an error was being printed
    return out_of_memory();
  }
}
