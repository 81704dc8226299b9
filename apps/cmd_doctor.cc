#include <nlohmann/json.hpp>
#include <string>

#include "apps/commands.h"
#include "apps/output.h"
#include "apps/print.h"
#include "apps/text.h"
#include "sluice/doctor.h"

namespace sluice::apps {
namespace {

using Json = nlohmann::ordered_json;

std::string size_or_unknown(uint64_t bytes) { return bytes == 0 ? "unknown" : format_size(bytes); }
std::string limit(uint64_t bytes) { return bytes == UINT64_MAX ? "no limit" : format_size(bytes); }

std::string cpu_text(const CpuHealth& c) {
  std::string text = join({"CPU: ",
                           printable(c.name),
                           "\n  ",
                           std::to_string(c.cores),
                           " cores, ",
                           std::to_string(c.hardware_threads),
                           " hardware threads, ",
                           std::to_string(c.numa_nodes),
                           c.numa_nodes == 1 ? " NUMA node" : " NUMA nodes",
                           "; kernels: ",
                           c.isa,
                           " with ",
                           std::to_string(c.threads),
                           " threads",
                           c.prompts.empty() ? "" : ", prompts by " + printable(c.prompts),
                           "\n  caches: L1d ",
                           size_or_unknown(c.l1d_bytes),
                           ", L2 ",
                           size_or_unknown(c.l2_bytes),
                           ", L3 ",
                           size_or_unknown(c.l3_bytes),
                           " in all\n"});
  if (c.quota > 0) text += format("  a cgroup grants %.1f CPUs\n", c.quota);
  return text;
}

std::string memory_text(const MemoryHealth& m) {
  return join({"memory: ", format_size(m.total), ", ", format_size(m.available), " available\n  reads ",
               format_rate(m.gb_s), " GB/s, ", format_rate(m.beside_disk_gb_s),
               " while the disk is read\n  transparent huge pages: ",
               m.transparent_huge_pages.empty() ? "none" : printable(m.transparent_huge_pages),
               "; reserved: ", std::to_string(m.reserved_huge_pages), " of ", size_or_unknown(m.huge_page_bytes),
               "\n  may be locked: ", limit(m.memlock), "\n"});
}

std::string disk_text(const DiskHealth& d) {
  std::string text =
      join({"disk: ", printable(d.path), "\n  ", printable(d.store), "; direct I/O: ", d.direct ? "yes" : "no"});
  if (d.offset_alignment != 0)
    text += join({", aligned to ", std::to_string(d.offset_alignment), " bytes in the file and ",
                  std::to_string(d.memory_alignment), " in memory"});
  text +=
      join({"\n  reads ", format_rate(d.read_gb_s), " GB/s, ", format_rate(d.beside_compute_gb_s), " while computing"});
  if (d.page_cache_gb_s > 0) text += join({"; from the page cache ", format_rate(d.page_cache_gb_s)});
  if (d.write_gb_s > 0) text += join({"; writes ", format_rate(d.write_gb_s)});
  return text + "\n";
}

std::string gpu_text(const GpuHealth& g) {
  std::string text = "GPU: " + std::string(g.available ? "available" : printable(g.reason)) + "\n";
  for (const std::string& device : g.devices) text += "  " + printable(device) + "\n";
  return text;
}

std::string kernel_text(const HealthReport& r) {
  Table table("lrrrr");
  table.add({"type", "fast GB/s", "Gflop/s", "f32 GB/s", "Gflop/s"});
  for (const KernelHealth& k : r.kernels)
    table.add({k.type, format_rate(k.fast_gb_s), format_rate(k.fast_gflops), format_rate(k.f32_gb_s),
               format_rate(k.f32_gflops)});
  return join({"kernels, with one token (GB/s of weights) and with many (Gflop/s); ", format("%.1f", r.call_us),
               " us a call\n", table.to_string()});
}

std::string findings_text(const HealthReport& r) {
  if (r.findings.empty()) return "nothing is wrong\n";
  std::string text;
  for (const Finding& finding : r.findings)
    text += join({"! ", printable(finding.what), "\n  remedy: ", printable(finding.remedy), "\n"});
  return text;
}

std::string describe(const HealthReport& r) {
  std::string text = join({cpu_text(r.cpu), memory_text(r.memory), disk_text(r.disk), gpu_text(r.gpu), "\n",
                           kernel_text(r), "\n", findings_text(r)});
  if (!r.machine_file.empty()) text += "rates written to " + printable(r.machine_file) + "\n";
  return text;
}

Json cpu_json(const CpuHealth& c) {
  return {{"name", c.name},           {"isa", c.isa},
          {"cores", c.cores},         {"hardware_threads", c.hardware_threads},
          {"threads", c.threads},     {"numa_nodes", c.numa_nodes},
          {"l1d_bytes", c.l1d_bytes}, {"l2_bytes", c.l2_bytes},
          {"l3_bytes", c.l3_bytes},   {"quota", c.quota},
          {"prompts", c.prompts}};
}

Json memory_json(const MemoryHealth& m) {
  return {{"total", m.total},
          {"available", m.available},
          {"transparent_huge_pages", m.transparent_huge_pages},
          {"reserved_huge_pages", m.reserved_huge_pages},
          {"huge_page_bytes", m.huge_page_bytes},
          {"memlock", m.memlock == UINT64_MAX ? Json() : Json(m.memlock)},
          {"gb_s", m.gb_s},
          {"beside_disk_gb_s", m.beside_disk_gb_s}};
}

Json disk_json(const DiskHealth& d) {
  return {{"path", d.path},
          {"store", d.store},
          {"io_uring", d.io_uring},
          {"direct", d.direct},
          {"why_not", d.why_not},
          {"offset_alignment", d.offset_alignment},
          {"memory_alignment", d.memory_alignment},
          {"read_gb_s", d.read_gb_s},
          {"beside_compute_gb_s", d.beside_compute_gb_s},
          {"page_cache_gb_s", d.page_cache_gb_s},
          {"write_gb_s", d.write_gb_s}};
}

std::string report_json(const HealthReport& r) {
  Json kernels = Json::array(), found = Json::array();
  for (const KernelHealth& k : r.kernels)
    kernels.push_back({{"type", k.type},
                       {"fast_gb_s", k.fast_gb_s},
                       {"fast_gflops", k.fast_gflops},
                       {"f32_gb_s", k.f32_gb_s},
                       {"f32_gflops", k.f32_gflops}});
  for (const Finding& f : r.findings) found.push_back({{"what", f.what}, {"remedy", f.remedy}});
  const Json all = {
      {"cpu", cpu_json(r.cpu)},
      {"memory", memory_json(r.memory)},
      {"disk", disk_json(r.disk)},
      {"gpu",
       {{"built", r.gpu.built}, {"available", r.gpu.available}, {"reason", r.gpu.reason}, {"devices", r.gpu.devices}}},
      {"kernels", std::move(kernels)},
      {"call_us", r.call_us},
      {"findings", std::move(found)},
      {"machine_file", r.machine_file}};
  return all.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

Result<int> doctor(const DoctorOptions& options) {
  ExamineOptions examine_options;
  examine_options.model = options.model;
  examine_options.path = options.directory;
  examine_options.machine_file = options.machine_file;
  examine_options.threads = options.threads;
  if (!options.json) examine_options.progress = print_note;
  SLUICE_ASSIGN_OR_RETURN(const HealthReport report, examine(examine_options));
  Output output;
  output.write(options.json ? report_json(report) + "\n" : describe(report));
  return output.finish();
}

}  // namespace sluice::apps
