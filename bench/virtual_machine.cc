#include "bench/virtual_machine.h"

#include <sys/mman.h>

#include <algorithm>
#include <limits>

#include "core/error.h"
#include "core/outputs.h"

namespace sluice::bench {
namespace {

constexpr double achieved = 0.9;  // of a device's peak, where its kernels were not measured

double rate_of(const std::map<DType, double>& rates, DType type, double otherwise) {
  const auto at = rates.find(type);
  return at != rates.end() && at->second > 0 ? at->second : otherwise;
}

double half_precision_gflops(const DeviceRates& d) { return rate_of(d.matmul_gflops, DType::bf16, 10); }

const LinkRates* find_link(const Machine& machine, const std::string& from, const std::string& to) {
  for (const LinkRates& link : machine.links)
    if (link.from == from && link.to == to) return &link;
  return nullptr;
}

}  // namespace

VirtualRates virtual_rates(const Machine& machine) {
  VirtualRates r;
  r.cpu = &machine.devices.front();
  if (const TierRates* disk = machine.tier("disk"); disk != nullptr) {
    r.disk_bytes_s = disk->read_gb_s * 1e9;
    r.cpu_beside_disk = disk->compute_beside;
    if (disk->read_beside_gb_s > 0) r.disk_beside_cpu = std::min(1.0, disk->read_beside_gb_s / disk->read_gb_s);
  }
  if (machine.devices.size() < 2) return r;
  r.gpu = &machine.devices[1];
  const LinkRates *up = find_link(machine, "host", r.gpu->id), *down = find_link(machine, r.gpu->id, "host");
  SLUICE_CHECK(up != nullptr && down != nullptr);
  r.link_bytes_s = up->gb_s * 1e9;
  r.hand_over_s = (up->latency_us + down->latency_us) * 1e-6;
  r.cpu_beside_link = up->compute_beside;
  if (up->beside_gb_s > 0) r.link_beside_cpu = std::min(1.0, up->beside_gb_s / up->gb_s);
  return r;
}

VirtualMemory::VirtualMemory(uint64_t bytes, bool host_accessible) : bytes_(bytes), host_accessible_(host_accessible) {
  if (bytes == 0) return;
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  SLUICE_CHECK(p != MAP_FAILED);
  base_ = static_cast<std::byte*>(p);
}
VirtualMemory::~VirtualMemory() {
  if (base_ != nullptr) munmap(base_, bytes_);
}

// --- what is written down

void Recorder::wait(Lane lane, const Event& event) {
  for (const LaneState& from : lanes_)
    if (event.timeline() == &from.timeline && event.value() > 0)
      lanes_[lane].after.push_back(from.at_value[event.value() - 1]);
}

Event Recorder::signal(Lane lane) {
  LaneState& l = lanes_[lane];
  l.at_value.push_back(l.last);
  l.timeline.signal(l.at_value.size());
  return {l.timeline, l.at_value.size()};
}

uint32_t Recorder::add(Lane lane, double seconds, bool hand_over) {
  const auto id = static_cast<uint32_t>(commands_.size());
  commands_.push_back({lane, hand_over, seconds, std::move(lanes_[lane].after)});
  lanes_[lane].after.clear();
  lanes_[lane].last = id;
  return id;
}

void Recorder::reads(uint32_t command, const void* address) {
  const auto* p = static_cast<const std::byte*>(address);
  auto slot = slots_.upper_bound(p);
  if (slot == slots_.begin()) return;
  --slot;
  if (p >= slot->first + slot->second.bytes) return;
  commands_[command].after.push_back(slot->second.writer);
  slot->second.readers[commands_[command].lane] = command;
}

void Recorder::writes(uint32_t command, const void* address, uint64_t bytes) {
  const auto* p = static_cast<const std::byte*>(address);
  auto slot = slots_.lower_bound(p);
  if (slot != slots_.begin() && std::prev(slot)->first + std::prev(slot)->second.bytes > p) --slot;
  std::vector<uint32_t>& after = commands_[command].after;
  while (slot != slots_.end() && slot->first < p + bytes) {
    after.push_back(slot->second.writer);
    for (const uint32_t reader : slot->second.readers)
      if (reader != 0) after.push_back(reader);
    slot = slots_.erase(slot);
  }
  slots_[p] = {bytes, command, {}};
}

void Recorder::start_over() {
  commands_.resize(1);
  steps_.clear();
  for (auto& [address, slot] : slots_) slot.writer = 0, slot.readers = {};
  for (LaneState& lane : lanes_) {
    lane.after.clear();
    lane.last = 0;
    std::fill(lane.at_value.begin(), lane.at_value.end(), 0);
  }
}

void Recorder::end_step() {
  for (const Lane lane : {cpu_lane, gpu_lane})
    for (const Lane before : {cpu_lane, gpu_lane})
      if (lanes_[before].last != 0) lanes_[lane].after.push_back(lanes_[before].last);
  steps_.push_back(static_cast<uint32_t>(commands_.size()));
}

// --- queues

double VirtualQueue::seconds(const KernelCall& call) const {
  const DeviceRates& d = device();
  const Cost c = cost(call);
  double gb_s = achieved * d.memory_gb_s, gflops = half_precision_gflops(d);
  if (const auto* matmul = std::get_if<MatmulCall>(&call); matmul != nullptr) {
    gb_s = rate_of(d.matvec_gb_s, matmul->dtype, gb_s);
    gflops = rate_of(d.matmul_gflops, matmul->dtype, gflops);
  }
  const double arithmetic = static_cast<double>(c.flops) / (gflops * 1e9);
  const double alone = std::max(static_cast<double>(c.bytes) / (gb_s * 1e9), arithmetic);
  return alone + (joined_ > 0 ? 0 : d.call_us * 1e-6);
}

// Whether it runs with the call before: the CPU's team goes through some products of the same activations at once, and
// a GPU's kernel through some of few tokens and one type.
bool VirtualQueue::joins(const KernelCall& call) {
  constexpr uint32_t most = 8;
  const auto* product = std::get_if<MatmulCall>(&call);
  const bool follows = product != nullptr && last_ && last_->x == product->x && joined_ + 1 < most &&
                       (lane_ == cpu_lane || (!product->prompt && last_->dtype == product->dtype)) &&
                       outputs_apart(*last_, *product);
  last_ = product != nullptr ? std::optional(*product) : std::nullopt;
  return follows;
}

void VirtualQueue::launch(const KernelCall& call) {
  if (const auto* copy = std::get_if<CopyRowsCall>(&call);
      copy != nullptr && lane_ == gpu_lane && device_->holds(copy->x) != device_->holds(copy->out)) {
    const double bytes = 4.0 * copy->n_rows * copy->cols;
    r_.add(lane_, r_.rates().hand_over_s + device().call_us * 1e-6 + bytes / r_.rates().link_bytes_s, true);
    return;
  }
  joined_ = joins(call) ? joined_ + 1 : 0;
  const uint32_t id = r_.add(lane_, seconds(call));
  if (const auto* matmul = std::get_if<MatmulCall>(&call); matmul != nullptr) r_.reads(id, matmul->weights);
}

void VirtualCopyQueue::copy(std::byte* to, const std::byte* from, uint64_t bytes) {
  const uint32_t id = r_.add(lane_, static_cast<double>(bytes) / r_.rates().link_bytes_s);
  r_.reads(id, from);
  r_.writes(id, to, bytes);
}

Result<FileId> VirtualStore::create_spill(const std::string&, uint64_t) {
  return error(Code::unsupported, "a virtual machine spills nothing");
}

void VirtualStore::submit(std::span<const IoRequest> requests, std::span<Event> events) {
  for (size_t i = 0; i < requests.size(); ++i) {
    const uint64_t bytes = slot_bytes(requests[i].extent);
    const uint32_t id = r_.add(disk_lane, static_cast<double>(bytes) / r_.rates().disk_bytes_s);
    r_.writes(id, requests[i].slot, bytes);
    events[i] = r_.signal(disk_lane);
  }
}

// --- replay

namespace {

class Lanes {
 public:
  explicit Lanes(const Recorder& recorder) : commands_(recorder.commands()), rates_(recorder.rates()) {
    for (uint32_t i = 1; i < commands_.size(); ++i) order_[commands_[i].lane].push_back(i);
    result_.end_s.assign(commands_.size(), std::numeric_limits<double>::infinity());
    result_.busy_until.resize(commands_.size());
    result_.idle_until.resize(commands_.size());
    result_.end_s[0] = 0;
  }

  Replay run() {
    while (start()) advance();
    return std::move(result_);
  }

 private:
  bool ready(uint32_t id) const {
    return std::all_of(commands_[id].after.begin(), commands_[id].after.end(),
                       [this](uint32_t before) { return result_.end_s[before] <= now_; });
  }
  // Whether anything runs.
  bool start() {
    bool any = false;
    for (int lane = 0; lane < n_lanes; ++lane) {
      if (!runs_[lane] && next_[lane] < order_[lane].size() && ready(order_[lane][next_[lane]])) {
        runs_[lane] = true;
        left_[lane] = commands_[order_[lane][next_[lane]]].seconds;
      }
      any = any || runs_[lane];
    }
    return any;
  }
  bool link_runs() const { return runs_[link_lane] || runs_[pages_lane]; }
  double speed(int lane) const {
    if (lane == cpu_lane)
      return (link_runs() ? rates_.cpu_beside_link : 1) * (runs_[disk_lane] ? rates_.cpu_beside_disk : 1);
    const bool on_link = lane == link_lane || lane == pages_lane;
    const double share = on_link && runs_[link_lane] && runs_[pages_lane] ? 0.5 : 1;
    if (!runs_[cpu_lane]) return share;
    return on_link ? share * rates_.link_beside_cpu : lane == disk_lane ? rates_.disk_beside_cpu : 1;
  }
  // To the next end of a command.
  void advance() {
    double step = std::numeric_limits<double>::infinity();
    std::array<double, n_lanes> speeds{};
    for (int lane = 0; lane < n_lanes; ++lane) {
      speeds[lane] = speed(lane);
      if (runs_[lane]) step = std::min(step, left_[lane] / speeds[lane]);
    }
    now_ += step;
    if (!runs_[cpu_lane] && !runs_[gpu_lane])
      idle_[link_runs() ? idle_link : runs_[disk_lane] ? idle_disk : idle_all] += step;
    for (int lane = 0; lane < n_lanes; ++lane)
      if (runs_[lane]) busy_[lane] += step, left_[lane] -= step * speeds[lane];
    if (runs_[pages_lane] && !runs_[link_lane]) busy_[link_lane] += step;
    for (int lane = 0; lane < n_lanes; ++lane) {
      if (!runs_[lane] || left_[lane] > 1e-13) continue;
      const uint32_t id = order_[lane][next_[lane]++];
      result_.end_s[id] = now_;
      result_.busy_until[id] = busy_;
      result_.idle_until[id] = idle_;
      runs_[lane] = false;
    }
  }

  const std::vector<Command>& commands_;
  const VirtualRates& rates_;
  std::array<std::vector<uint32_t>, n_lanes> order_;
  std::array<size_t, n_lanes> next_{};
  std::array<bool, n_lanes> runs_{};
  std::array<double, n_lanes> left_{}, busy_{};
  std::array<double, n_idle> idle_{};
  double now_ = 0;
  Replay result_;
};

}  // namespace

Replay replay(const Recorder& recorder) { return Lanes(recorder).run(); }

}  // namespace sluice::bench
