// A machine in virtual time: devices, a link and a disk that do nothing but write down what they are asked to do.
//
// The executor, the weight streams, the KV store and the tier manager run as they do on hardware. Every kernel, copy
// and read becomes a Command with the time that it would take alone and the commands it has to wait for; its Event has
// signalled at once, so that the driving thread never waits. What orders commands is found twice: Events of these
// queues, and addresses, since a slot is read after it was written and written again after it was read. When all is
// written down replay() lets the lanes run, each in order, and tells when each command ends.
//
// Not modelled: how long the driving thread takes to enqueue, and KV that goes to disk.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "core/device.h"
#include "core/machine.h"
#include "core/memory.h"
#include "core/store.h"

namespace sluice::bench {

// Copies of weights and of KV pages are enqueued apart, and share the link while both run.
enum Lane : uint8_t { cpu_lane, gpu_lane, link_lane, pages_lane, disk_lane, n_lanes };

struct Command {
  Lane lane = cpu_lane;
  bool hand_over = false;  // between sites
  double seconds = 0;      // alone
  std::vector<uint32_t> after;
};

// The rates that commands are timed by.
struct VirtualRates {
  const DeviceRates* cpu = nullptr;
  const DeviceRates* gpu = nullptr;  // null: there is none
  double link_bytes_s = 0, hand_over_s = 0;
  double disk_bytes_s = 0;
  // Parts of their speed that lanes keep while others run.
  double link_beside_cpu = 1, cpu_beside_link = 1, disk_beside_cpu = 1, cpu_beside_disk = 1;
};
VirtualRates virtual_rates(const Machine& machine);

// Address space that nobody touches much of.
class VirtualMemory : public Memory {
 public:
  VirtualMemory(uint64_t bytes, bool host_accessible);
  ~VirtualMemory() override;
  std::byte* base() const override { return base_; }
  uint64_t capacity() const override { return bytes_; }
  bool host_accessible() const override { return host_accessible_; }
  bool holds(const void* p) const { return p >= base_ && p < base_ + bytes_; }

 private:
  std::byte* base_ = nullptr;
  const uint64_t bytes_;
  const bool host_accessible_;
};

class Recorder {
 public:
  explicit Recorder(const VirtualRates& rates) : rates_(rates) {}

  // The next command of the lane starts after the event, if a lane made it.
  void wait(Lane lane, const Event& event);
  Event signal(Lane lane);
  uint32_t add(Lane lane, double seconds, bool hand_over = false);
  void reads(uint32_t command, const void* address);
  void writes(uint32_t command, const void* address, uint64_t bytes);

  // Forgets the commands so far: they have ended.
  void start_over();
  // All that computes from here on starts after all that computed before, as the next step does.
  void end_step();
  const std::vector<Command>& commands() const { return commands_; }
  // Where each step ended, as the number of commands before.
  const std::vector<uint32_t>& steps() const { return steps_; }
  const VirtualRates& rates() const { return rates_; }

 private:
  struct Slot {
    uint64_t bytes = 0;
    uint32_t writer = 0;
    std::array<uint32_t, n_lanes> readers{};  // the last of each lane; 0: none
  };
  struct LaneState {
    Timeline timeline;
    std::vector<uint32_t> at_value;  // by value of the timeline: the last command before it
    std::vector<uint32_t> after;     // of the next command
    uint32_t last = 0;
  };
  const VirtualRates rates_;
  std::vector<Command> commands_ = std::vector<Command>(1);  // 0 is none
  std::array<LaneState, n_lanes> lanes_;
  std::map<const std::byte*, Slot> slots_;
  std::vector<uint32_t> steps_;
};

class VirtualQueue : public Queue {
 public:
  VirtualQueue(Recorder& recorder, Lane lane, const VirtualMemory* device)
      : r_(recorder), lane_(lane), device_(device) {}
  void wait(const Event& event) override {
    last_.reset();
    r_.wait(lane_, event);
  }
  void launch(const KernelCall& call) override;
  Event signal() override {
    last_.reset();
    return r_.signal(lane_);
  }
  void reset() override {}

 private:
  bool joins(const KernelCall& call);
  const DeviceRates& device() const { return lane_ == gpu_lane ? *r_.rates().gpu : *r_.rates().cpu; }
  double seconds(const KernelCall& call) const;
  Recorder& r_;
  const Lane lane_;
  const VirtualMemory* device_;     // the accelerator's, to tell hand-overs by
  std::optional<MatmulCall> last_;  // the call before, if it is a product that another one may join
  uint32_t joined_ = 0;             // products that the last one ran with
};

class VirtualDevice : public Device {
 public:
  VirtualDevice(Recorder& recorder, Lane lane, TierId tier, const VirtualMemory* device)
      : queue_(recorder, lane, device), lane_(lane), tier_(tier) {}
  std::string name() const override { return lane_ == gpu_lane ? "gpu 0" : "cpu"; }
  TierId memory_tier() const override { return tier_; }
  Queue& queue() override { return queue_; }
  ActFormat act_format(DType, Compute, bool) const override { return ActFormat::f32; }
  uint64_t act_row_bytes(ActFormat, uint32_t cols) const override { return uint64_t{cols} * 4; }

 private:
  VirtualQueue queue_;
  const Lane lane_;
  const TierId tier_;
};

class VirtualCopyQueue : public CopyQueue {
 public:
  VirtualCopyQueue(Recorder& recorder, Lane lane) : r_(recorder), lane_(lane) {}
  void wait(const Event& event) override { r_.wait(lane_, event); }
  void copy(std::byte* to, const std::byte* from, uint64_t bytes) override;
  Event signal() override { return r_.signal(lane_); }
  void reset() override {}

 private:
  Recorder& r_;
  const Lane lane_;
};

// One file of any size.
class VirtualStore : public Store {
 public:
  explicit VirtualStore(Recorder& recorder) : r_(recorder) {}
  Result<FileId> open(const std::string&) override { return FileId{0}; }
  Result<FileId> create_spill(const std::string&, uint64_t) override;
  void close(FileId) override {}
  uint64_t size(FileId) const override { return UINT64_MAX / 2; }
  void submit(std::span<const IoRequest> requests, std::span<Event> events) override;
  void cancel(std::span<const Event>) override {}
  void use_region(std::span<std::byte>) override {}
  StoreStats stats() const override { return {}; }
  std::string describe() const override { return "virtual"; }

 private:
  Recorder& r_;
};

// Neither device computes, and so long the link runs, or else the disk, or neither.
enum Idle : uint8_t { idle_link, idle_disk, idle_all, n_idle };

// When each command ends, if the lanes run at once, and how long until then lanes were busy (link_lane: the link was,
// with whatever) and devices idle.
struct Replay {
  std::vector<double> end_s;
  std::vector<std::array<double, n_lanes>> busy_until;
  std::vector<std::array<double, n_idle>> idle_until;
};
Replay replay(const Recorder& recorder);

}  // namespace sluice::bench
