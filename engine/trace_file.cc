#include "engine/trace_file.h"

#include <algorithm>
#include <cstdio>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "engine/stalls.h"

namespace sluice::engine {
namespace {

// Spans of one lane may overlap (requests on the disk): each goes to the first row that is free, and rows
// are shown as threads of the lane.
class Rows {
 public:
  uint32_t place(const TraceSpan& span) {
    for (uint32_t row = 0; row < busy_until_.size(); ++row)
      if (busy_until_[row] <= span.start_ns) return busy_until_[row] = span.end_ns, row;
    busy_until_.push_back(span.end_ns);
    return static_cast<uint32_t>(busy_until_.size() - 1);
  }

 private:
  std::vector<uint64_t> busy_until_;
};

void print_stalls(std::FILE* file, const StallReport& report) {
  fmt::print(file, "{{\"otherData\":{{\"dropped_spans\":{}", report.dropped_spans);
  for (const PeriodReport& p : report.periods) {
    fmt::print(file,
               ",\n\"{}\":{{\"steps\":{},\"seconds\":{:.6f},\"computing\":{:.6f},\"waiting for disk\":{:.6f},"
               "\"waiting for link\":{:.6f},\"host\":{:.6f},\"between steps\":{:.6f}",
               p.name, p.steps, p.seconds, p.computing_s, p.disk_s, p.link_s, p.host_s, p.between_s);
    for (const LaneReport& lane : p.lanes) fmt::print(file, ",\"{} busy\":{:.6f}", lane.name, lane.busy_s);
    fmt::print(file, "}}");
  }
  fmt::print(file, "}},\n\"traceEvents\":[\n");
}

}  // namespace

Status write_trace_file(const Trace& trace, const std::string& path) {
  std::vector<TraceSpan> spans;
  for (size_t i = 0; i < trace.size(); ++i) spans.push_back(trace[i]);
  std::sort(spans.begin(), spans.end(), [](auto& a, auto& b) { return a.start_ns < b.start_ns; });
  const uint64_t origin = spans.empty() ? 0 : spans.front().start_ns;

  std::FILE* file = std::fopen(path.c_str(), "w");
  if (file == nullptr) return error(Code::io_error, "{}: the trace cannot be written", path);
  std::vector<std::string_view> lanes;
  std::vector<Rows> rows;
  print_stalls(file, find_stalls(trace));
  for (const TraceSpan& span : spans) {
    size_t lane = static_cast<size_t>(std::find(lanes.begin(), lanes.end(), span.lane) - lanes.begin());
    if (lane == lanes.size()) {
      lanes.emplace_back(span.lane);
      rows.emplace_back();
      fmt::print(file, "{{\"ph\":\"M\",\"pid\":{},\"name\":\"process_name\",\"args\":{{\"name\":\"{}\"}}}},\n", lane,
                 span.lane);
    }
    const double us = static_cast<double>(span.end_ns - span.start_ns) * 1e-3;
    fmt::print(file,
               "{{\"ph\":\"X\",\"pid\":{},\"tid\":{},\"name\":\"{}\",\"ts\":{:.3f},\"dur\":{:.3f},"
               "\"args\":{{\"bytes\":{},\"flops\":{},\"gb_s\":{:.3f}}}}},\n",
               lane, rows[lane].place(span), span.name, static_cast<double>(span.start_ns - origin) * 1e-3, us,
               span.bytes, span.flops, us > 0 ? static_cast<double>(span.bytes) / us * 1e-3 : 0.0);
  }
  fmt::print(file, "{{\"ph\":\"M\",\"pid\":0,\"name\":\"process_labels\",\"args\":{{\"labels\":\"sluice\"}}}}]}}\n");
  return std::fclose(file) == 0 ? Status() : error(Code::io_error, "{}: the trace cannot be written", path);
}

}  // namespace sluice::engine
