// Broken disks and broken files, seen through a whole engine: a clean error, and everything given back.
#include <fcntl.h>
#include <unistd.h>

#include <cstring>
#include <random>

#include "engine/session.h"
#include "tests/engine/engine_rig.h"
#include "tests/support/faulty_store.h"

namespace sluice::test {
namespace {

using engine::Blueprint;
using engine::Runtime;
using testing::Fault;
using testing::OwnedFaultyStore;

size_t entries(const char* directory) {
  const std::filesystem::directory_iterator all(directory);
  return static_cast<size_t>(std::distance(begin(all), end(all)));
}

// What a process holds that an engine takes: descriptors and threads.
struct Held {
  size_t files = entries("/proc/self/fd"), threads = entries("/proc/self/task");
  bool operator==(const Held&) const = default;
};

// A thread that was joined may be seen in /proc for a moment more.
bool given_back(const Held& before) {
  for (int i = 0; i < 200; ++i) {
    if (Held() == before) return true;
    ::usleep(5000);
  }
  return false;
}

EngineOptions tiny(uint64_t ram, const std::string& model = fixture("llama_mha.gguf")) {
  EngineOptions options = options_for(model, ram);
  options.context = 64;
  options.logit_rows = 8;
  options.batch = 8;
  options.load = Load::direct;
  return options;
}

// To the page, the least budget: one under which weights and embedding rows are read in every step.
uint64_t least_ram() {
  uint64_t low = 0, high = 4 * MiB;
  while (high - low > 4096) {
    const uint64_t middle = (low + high) / 2;
    (engine::draw_up(tiny(middle)).ok() ? high : low) = middle;
  }
  return high;
}

const std::vector<int32_t> ids = {1, 5, 9, 2, 7, 3, 11, 4, 6, 8, 10, 12};

struct Faulty {
  OwnedFaultyStore* store = nullptr;
  std::unique_ptr<Runtime> runtime;

  Status start(uint64_t ram, const std::optional<Fault>& fault) {
    Blueprint blueprint = must(engine::draw_up(tiny(ram)));
    blueprint.wrap_store = [&](std::unique_ptr<Store> inner) {
      auto owned = std::make_unique<OwnedFaultyStore>(std::move(inner));
      store = owned.get();
      if (fault) store->faults().set(*fault);
      return owned;
    };
    auto started = Runtime::start(std::move(blueprint));
    if (!started.ok()) return started.status();
    runtime = std::move(*started);
    return {};
  }
};

TEST_CASE("faults: whichever read fails while loading, the error names it and nothing is kept") {
  start(tiny(least_ram())).reset();  // what is made once stays
  const Held before;
  for (const Fault::Kind kind : {Fault::Kind::eio, Fault::Kind::shrunk}) {
    bool loaded = false;
    for (uint64_t nth = 1; !loaded; ++nth) {
      REQUIRE(nth < 200);
      Faulty faulty;
      const Status status = faulty.start(64 * MiB, Fault{kind, IoRequest::Op::read, nth});
      loaded = status.ok();
      if (loaded) {
        CHECK(faulty.store->faults().faults() == 0);
        CHECK(nth > 3);
        continue;
      }
      CHECK(status.code() == Code::io_error);
      CHECK(status.message().find("injected") != std::string::npos);
    }
    CHECK(given_back(before));
  }
}

TEST_CASE("faults: whichever read fails while running, the session is as before and goes on with the same bits") {
  const uint64_t ram = least_ram();
  const auto want = all_logits(*start(tiny(ram)), ids, 4);
  const Held before;
  for (const Fault::Kind kind : {Fault::Kind::eio, Fault::Kind::shrunk}) {
    Faulty faulty;
    REQUIRE(faulty.start(ram, {}).ok());
    REQUIRE(plan::traffic(faulty.runtime->graph(), faulty.runtime->plan(), false).disk_bytes > 0);
    uint64_t failed = 0;
    for (uint64_t nth = 1; nth < 400; ++nth) {
      auto session = must(engine::SessionImpl::create(*faulty.runtime));
      REQUIRE(session->append({ids.data(), 4}).ok());
      faulty.store->faults().set({kind, IoRequest::Op::read, nth});
      const uint64_t struck = faulty.store->faults().faults();
      const Status status = session->append({ids.data() + 4, 8});
      faulty.store->faults().clear();
      if (faulty.store->faults().faults() == struck) {
        CHECK(status.ok());
        break;
      }
      ++failed;
      CHECK_MESSAGE((status.ok() || status.code() == Code::io_error), status.message());
      CHECK(session->length() == (status.ok() ? 12 : 4));  // a read ahead may fail and be made again
      session.reset();
      CHECK(all_logits(*faulty.runtime, ids, 4) == want);
    }
    CHECK(failed > 3);
    CHECK(faulty.runtime->disk().in_flight == 0);
    faulty.runtime.reset();
    CHECK(given_back(before));
  }
}

// A copy of the fixture that a test may spoil.
class OwnModel {
 public:
  OwnModel() {
    std::string name = "/var/tmp/sluice-faults-XXXXXX";
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    directory_ = name;
    std::filesystem::copy_file(fixture("llama_mha.gguf"), path());
    bytes_ = std::filesystem::file_size(path());
  }
  ~OwnModel() { std::filesystem::remove_all(directory_); }
  std::string path() const { return directory_ + "/model.gguf"; }
  std::string other() const { return directory_ + "/other.gguf"; }
  uint64_t bytes() const { return bytes_; }

 private:
  std::string directory_;
  uint64_t bytes_ = 0;
};

TEST_CASE("faults: a file that shrinks before or while it runs is an error, never SIGBUS") {
  const uint64_t ram = least_ram();
  for (const Load load : {Load::direct, Load::buffered, Load::automatic}) {
    OwnModel model;
    EngineOptions options = tiny(ram, model.path());
    options.load = load;
    Blueprint blueprint = must(engine::draw_up(options));
    REQUIRE(::truncate(model.path().c_str(), static_cast<off_t>(model.bytes() / 2)) == 0);
    const auto early = Runtime::start(std::move(blueprint));
    CHECK(early.status().code() == Code::io_error);

    std::filesystem::copy_file(fixture("llama_mha.gguf"), model.path(),
                               std::filesystem::copy_options::overwrite_existing);
    auto runtime = start(options);
    auto session = must(engine::SessionImpl::create(*runtime));
    REQUIRE(session->append({ids.data(), 4}).ok());
    REQUIRE(::truncate(model.path().c_str(), 8192) == 0);
    Status status;
    for (int i = 0; i < 4 && status.ok(); ++i) status = session->append({ids.data(), 4});  // some is read ahead
    CHECK_MESSAGE(status.code() == Code::io_error, status.message());
    CHECK(status.message().find(model.path()) != std::string::npos);
  }
}

TEST_CASE("faults: a file that is replaced by another is read on as it was opened") {
  const uint64_t ram = least_ram();
  const auto want = all_logits(*start(tiny(ram)), ids, 4);
  OwnModel model;
  auto runtime = start(tiny(ram, model.path()));
  CHECK(all_logits(*runtime, ids, 4) == want);
  std::filesystem::copy_file(fixture("llama_bias.gguf"), model.other());
  std::filesystem::rename(model.other(), model.path());
  CHECK(all_logits(*runtime, ids, 4) == want);
  std::filesystem::remove(model.path());
  CHECK(all_logits(*runtime, ids, 4) == want);
}

std::vector<char> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_file(const std::string& path, const char* bytes, size_t n) {
  std::ofstream(path, std::ios::binary | std::ios::trunc).write(bytes, static_cast<std::streamsize>(n));
}

// Where the tensors' data begins.
uint64_t data_begin(const std::string& path) {
  const ModelReport report = must(Engine::inspect(path));
  uint64_t first = UINT64_MAX;
  for (const TensorReport& t : report.tensors) first = std::min(first, t.offset);
  return first;
}

TEST_CASE("faults: a model cut at any byte is refused with the file's name") {
  OwnModel model;
  const auto whole = read_file(model.path());
  const uint64_t header = data_begin(model.path());
  for (size_t n = 0; n < whole.size(); n += n < header ? 1 : 997) {
    REQUIRE(::truncate(model.path().c_str(), 0) == 0);
    write_file(model.path(), whole.data(), n);
    const auto refused = engine::draw_up(tiny(64 * MiB, model.path()));
    if (refused.ok()) FAIL("cut to ", n, " of ", whole.size());
    if (refused.status().message().find("model.gguf") == std::string::npos) FAIL(refused.status().message());
  }
}

TEST_CASE("faults: flipped bits in the header never crash; what opens can run or says why not") {
  OwnModel model;
  const auto whole = read_file(model.path());
  const uint64_t header = data_begin(model.path());
  std::mt19937 random(11);
  int opened = 0, refused = 0;
  for (uint64_t at = 0; at < header; at += 1 + random() % 3) {
    auto bytes = whole;
    bytes[at] = static_cast<char>(bytes[at] ^ (1 << random() % 8));
    write_file(model.path(), bytes.data(), bytes.size());
    EngineOptions options = tiny(16 * MiB, model.path());
    options.threads = 1;
    auto blueprint = engine::draw_up(options);
    if (!blueprint.ok()) {
      ++refused;
      continue;
    }
    ++opened;
    if (opened % 16 != 0) continue;
    auto runtime = Runtime::start(std::move(*blueprint));
    if (!runtime.ok()) continue;
    auto session = must(engine::SessionImpl::create(**runtime));
    session->append({ids.data(), 4}).ignore();
  }
  CHECK(opened > 0);
  CHECK(refused > 0);
}

}  // namespace
}  // namespace sluice::test
