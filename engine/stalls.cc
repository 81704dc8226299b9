#include "engine/stalls.h"

#include <algorithm>
#include <array>
#include <string>
#include <vector>

namespace sluice::engine {
namespace {

enum Kind : uint8_t { compute, disk, link, driver, other, n_kinds };
enum Period : uint8_t { load, prompt, decode, n_periods };
constexpr std::array<const char*, n_periods> period_names = {"load", "prompt", "decode"};

Kind kind_of(std::string_view lane) {
  if (lane == "disk") return disk;
  if (lane == "step" || lane == "executor") return driver;
  if (lane == "pcie" || lane.ends_with(" h2d") || lane.ends_with(" d2h")) return link;
  return lane.starts_with("cpu") || lane.starts_with("gpu") ? compute : other;
}

double seconds(uint64_t ns) { return static_cast<double>(ns) * 1e-9; }

double rate(uint64_t bytes, uint64_t ns) { return ns > 0 ? static_cast<double>(bytes) / static_cast<double>(ns) : 0; }

struct Lane {
  std::string_view name;
  Kind kind = other;
  int open = 0;  // spans under way
  std::array<uint64_t, n_periods> busy_ns{}, bytes{};
};

// Where a span begins (+1) or ends (-1).
struct Edge {
  uint64_t at_ns = 0;
  uint64_t bytes = 0;  // of the span that ends
  uint16_t lane = 0;
  int8_t change = 0;
  Period period = load;  // of the step that begins
};

struct Totals {
  uint64_t computing = 0, disk = 0, link = 0, host = 0, between = 0;
  uint32_t steps = 0;
  uint64_t all() const { return computing + disk + link + host + between; }
};

// Walks edges in the order of time and charges what lies between two of them.
class Sweep {
 public:
  explicit Sweep(const Trace& trace) {
    find_end(trace);
    edges_.reserve(2 * trace.size());
    for (size_t i = 0; i < trace.size(); ++i)
      if (const TraceSpan* span = trace.find(i); span != nullptr) add(*span);
    std::sort(edges_.begin(), edges_.end(), [](const Edge& a, const Edge& b) { return a.at_ns < b.at_ns; });
  }

  void run() {
    uint64_t before = edges_.empty() ? 0 : edges_.front().at_ns;
    for (const Edge& edge : edges_) {
      charge(edge.at_ns - before);
      before = edge.at_ns;
      pass(edge);
    }
  }

  std::vector<PeriodReport> periods() const {
    std::vector<PeriodReport> periods;
    for (size_t p = 0; p < n_periods; ++p)
      if (totals_[p].all() > 0 || totals_[p].steps > 0) periods.push_back(report(p));
    return periods;
  }

 private:
  // Reads ahead of a step that never came kept nobody waiting.
  void find_end(const Trace& trace) {
    uint64_t last_step = 0, last = 0;
    for (size_t i = 0; i < trace.size(); ++i) {
      const TraceSpan* span = trace.find(i);
      if (span == nullptr) continue;
      last = std::max(last, span->end_ns);
      if (std::string_view(span->lane) == "step") last_step = std::max(last_step, span->end_ns);
    }
    end_ns_ = last_step > 0 ? last_step : last;
  }

  void add(const TraceSpan& span) {
    const uint64_t end = std::min(span.end_ns, end_ns_);
    if (span.start_ns > end) return;
    const uint16_t lane = lane_of(span.lane);
    Edge first{span.start_ns, 0, lane, 1, load}, last{end, span.bytes, lane, -1, load};
    if (lanes_[lane].name == "step") first.period = std::string_view(span.name) == "prompt" ? prompt : decode;
    if (end < span.end_ns)
      last.bytes = static_cast<uint64_t>(static_cast<double>(span.bytes) * seconds(end - span.start_ns) /
                                         seconds(span.end_ns - span.start_ns));
    edges_.push_back(first);
    edges_.push_back(last);
  }

  uint16_t lane_of(std::string_view name) {
    const auto found = std::find_if(lanes_.begin(), lanes_.end(), [name](const Lane& l) { return l.name == name; });
    const auto lane = static_cast<uint16_t>(found - lanes_.begin());
    if (found == lanes_.end()) lanes_.push_back({name, kind_of(name), 0, {}, {}});
    return lane;
  }

  void charge(uint64_t ns) {
    if (ns == 0) return;
    for (Lane& lane : lanes_)
      if (lane.open > 0) lane.busy_ns[period_] += ns;
    Totals& totals = totals_[period_];
    const bool waits = open_[driver] > 0 || period_ == load;
    if (open_[compute] > 0) totals.computing += ns;
    else if (waits && open_[disk] > 0) totals.disk += ns;
    else if (waits && open_[link] > 0) totals.link += ns;
    else if (open_[driver] > 0) totals.host += ns;
    else totals.between += ns;
  }

  void pass(const Edge& edge) {
    Lane& lane = lanes_[edge.lane];
    lane.open += edge.change;
    open_[lane.kind] += edge.change;
    lane.bytes[period_] += edge.bytes;
    if (edge.period == load) return;
    period_ = edge.period;
    ++totals_[period_].steps;
  }

  PeriodReport report(size_t p) const {
    const Totals& t = totals_[p];
    PeriodReport report{period_names[p], t.steps,         seconds(t.all()), seconds(t.computing),
                        seconds(t.disk), seconds(t.link), seconds(t.host),  seconds(t.between)};
    for (const Lane& lane : lanes_)
      if (lane.kind != driver && lane.busy_ns[p] > 0)
        report.lanes.push_back(
            {std::string(lane.name), seconds(lane.busy_ns[p]), lane.bytes[p], rate(lane.bytes[p], lane.busy_ns[p])});
    std::sort(report.lanes.begin(), report.lanes.end(), [](auto& a, auto& b) { return a.name < b.name; });
    return report;
  }

  uint64_t end_ns_ = 0;
  std::vector<Lane> lanes_;  // a handful
  std::vector<Edge> edges_;
  std::array<int, n_kinds> open_{};  // spans of all lanes of a kind
  std::array<Totals, n_periods> totals_{};
  Period period_ = load;
};

}  // namespace

StallReport find_stalls(const Trace& trace) {
  Sweep sweep(trace);
  sweep.run();
  return {sweep.periods(), trace.dropped()};
}

double lane_gb_s(const StallReport& report, std::string_view lane) {
  double bytes = 0, busy_s = 0;
  for (const PeriodReport& period : report.periods)
    for (const LaneReport& l : period.lanes)
      if (l.name == lane) bytes += static_cast<double>(l.bytes), busy_s += l.busy_s;
  return busy_s > 0 ? bytes / busy_s * 1e-9 : 0;
}

}  // namespace sluice::engine
