// examine(): the facts, the measurements, and the machine file that comes of them.
#include "sluice/doctor.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/bytes.h"
#include "core/error.h"
#include "core/trace.h"
#include "engine/doctor/facts.h"
#include "engine/machine/machine_file.h"
#include "engine/machine/measure.h"
#include "engine/machine/measure_disk.h"
#include "engine/machine/measure_model.h"
#include "engine/model.h"
#include "engine/system.h"
#include "storage/file_handle.h"

namespace sluice {
namespace {

using namespace engine;

constexpr uint64_t probe_bytes = 256 * MiB;
constexpr double seconds_each = 2;

double seconds_since(uint64_t start) { return static_cast<double>(now_ns() - start) * 1e-9; }

// A file to read where none was given, removed in the end.
class ProbeFile {
 public:
  // Writes it; `gb_s` is the rate until the disk has it.
  static Result<ProbeFile> write(const std::string& directory, double& gb_s) {
    ProbeFile file;
    std::string path = directory + "/sluice-doctor-XXXXXX";
    const storage::UniqueFd fd(mkostemp(path.data(), O_CLOEXEC));
    if (!fd.valid()) return error(Code::io_error, "{}: no file can be made there: {}", directory, strerror(errno));
    file.path_ = path;
    std::vector<std::byte> part(8 * MiB);
    uint64_t value = 1;
    for (size_t i = 0; i + 8 <= part.size(); i += 8) {
      value = value * 6364136223846793005u + 1442695040888963407u;  // so that no disk compresses it
      std::memcpy(part.data() + i, &value, 8);
    }
    const uint64_t start = now_ns();
    for (uint64_t done = 0; done < probe_bytes;) {
      const ssize_t n = ::write(fd.get(), part.data(), part.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return error(Code::io_error, "{}: cannot be written: {}", path, strerror(errno));
      done += static_cast<uint64_t>(n);
    }
    if (::fdatasync(fd.get()) != 0) return error(Code::io_error, "{}: cannot be written: {}", path, strerror(errno));
    gb_s = static_cast<double>(probe_bytes) / seconds_since(start) * 1e-9;
    return file;
  }
  ProbeFile(ProbeFile&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  ~ProbeFile() {
    if (!path_.empty()) ::unlink(path_.c_str());
  }
  const std::string& path() const { return path_; }

 private:
  ProbeFile() = default;
  std::string path_;
};

class Examination {
 public:
  explicit Examination(const ExamineOptions& options) : o_(options) { cpu_.n_threads = options.threads; }

  Result<HealthReport> run() {
    SLUICE_ASSIGN_OR_RETURN(device_, cpu::CpuDevice::create(cpu_));
    SLUICE_ASSIGN_OR_RETURN(report_.cpu, cpu_facts(*device_, cpu_));
    report_.memory = memory_facts();
    SLUICE_RETURN_IF_ERROR(measure_kernels());
    SLUICE_RETURN_IF_ERROR(measure_disks());
    SLUICE_RETURN_IF_ERROR(measure_products());
    report_.gpu = gpu_facts();
    report_.findings = findings(report_);
    SLUICE_RETURN_IF_ERROR(write_file());
    return std::move(report_);
  }

 private:
  void say(const char* what) {
    if (o_.progress) o_.progress(what);
  }

  Status measure_kernels() {
    say("measuring memory and kernels");
    SLUICE_ASSIGN_OR_RETURN(DeviceRates rates, measure_cpu(*device_, weights_));
    for (const auto& [type, gb_s] : rates.matvec_gb_s)
      report_.kernels.push_back({std::string(info(type).name), gb_s, rates.matmul_gflops[type],
                                 rates.matvec_f32_gb_s[type], rates.matmul_f32_gflops[type]});
    report_.call_us = rates.call_us;
    report_.memory.gb_s = rates.memory_gb_s;
    machine_.name = report_.cpu.name;
    machine_.build = build_id();
    machine_.tiers.push_back({"host", report_.memory.total, rates.memory_gb_s, 0, 0, 1});
    machine_.devices.push_back(std::move(rates));
    return {};
  }

  // On the file that was given, or on one made in the directory.
  Status measure_disks() {
    std::string path = o_.path.empty() ? cache_directory() : o_.path;
    struct stat st {};
    if (path.empty()) return error(Code::not_found, "there is no home for a cache directory: name one with --dir");
    if (::stat(path.c_str(), &st) != 0) return error(Code::not_found, "{}: {}", path, strerror(errno));
    if (!S_ISDIR(st.st_mode)) return measure_disk(path, 0, false);
    say("writing a file of 256 MiB");
    double write_gb_s = 0;
    SLUICE_ASSIGN_OR_RETURN(const ProbeFile file, ProbeFile::write(path, write_gb_s));
    SLUICE_RETURN_IF_ERROR(measure_disk(file.path(), write_gb_s, true));
    report_.disk.path = path;
    return {};
  }

  Status measure_disk(const std::string& path, double write_gb_s, bool cached) {
    say("measuring the disk, alone and while computing");
    SLUICE_ASSIGN_OR_RETURN(report_.disk, disk_facts(path));
    SLUICE_ASSIGN_OR_RETURN(TierRates disk,
                            measure_tier("disk", path, storage::LoadMode::direct, seconds_each, *device_, weights_));
    disk.write_gb_s = write_gb_s;
    report_.disk.read_gb_s = disk.read_gb_s;
    report_.disk.beside_compute_gb_s = disk.read_beside_gb_s;
    report_.disk.write_gb_s = write_gb_s;
    report_.memory.beside_disk_gb_s = report_.memory.gb_s * disk.compute_beside;
    cache_path_ = machine_cache_path(*device_, path);
    machine_.links.push_back({"disk", "host", disk.read_gb_s, 0});
    machine_.tiers.push_back(std::move(disk));
    if (!cached) return {};
    SLUICE_ASSIGN_OR_RETURN(TierRates hot,
                            measure_tier("page cache", path, storage::LoadMode::buffered, seconds_each, *device_, weights_));
    report_.disk.page_cache_gb_s = hot.read_gb_s;
    machine_.tiers.push_back(std::move(hot));
    return {};
  }

  Status measure_products() {
    if (o_.model.empty()) return {};
    say("measuring the model's own products");
    SLUICE_ASSIGN_OR_RETURN(const Model model, open_model(o_.model));
    return measure_model(model.graph, Compute::fast, weights_, *device_, machine_.devices.front()).status();
  }

  Status write_file() {
    report_.machine_file = o_.machine_file.empty() ? cache_path_ : o_.machine_file;
    return report_.machine_file.empty() ? Status() : write_machine(machine_, report_.machine_file);
  }

  const ExamineOptions& o_;
  cpu::CpuOptions cpu_;
  std::unique_ptr<cpu::CpuDevice> device_;
  const uint64_t weights_ = bytes_to_measure_with(available_memory() / 4);
  HealthReport report_;
  Machine machine_;
  std::string cache_path_;
};

}  // namespace

Result<HealthReport> examine(const ExamineOptions& options) {
  ExamineOptions o = options;
  if (o.path.empty()) o.path = o.model;
  return Examination(o).run();
}

}  // namespace sluice
