#include "engine/system.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>

namespace sluice::engine {
namespace {

namespace fs = std::filesystem;

std::optional<uint64_t> read_number(const fs::path& path) {
  std::ifstream file(path);
  uint64_t value = 0;
  if (!(file >> value)) return std::nullopt;  // also for "max"
  return value;
}

// The value of "Name:  123 kB" in bytes.
uint64_t meminfo(const std::string& name) {
  std::ifstream file("/proc/meminfo");
  for (std::string line; std::getline(file, line);)
    if (line.rfind(name + ":", 0) == 0) return std::strtoull(line.c_str() + name.size() + 1, nullptr, 10) * 1024;
  return 0;
}

// What a cgroup directory leaves: limit - usage, the page cache counted as free where it is listed, as MemAvailable
// does too: what was read twice is active, and yet goes before anything is swapped out.
uint64_t left_in(const fs::path& directory, const char* limit_file, const char* usage_file) {
  const auto limit = read_number(directory / limit_file), usage = read_number(directory / usage_file);
  if (!limit || !usage) return std::numeric_limits<uint64_t>::max();
  uint64_t inactive = 0, active = 0;
  std::ifstream stat(directory / "memory.stat");
  std::string name;
  for (uint64_t value = 0; stat >> name >> value;) {
    if (name == "inactive_file" || name == "total_inactive_file") inactive = std::max(inactive, value);
    if (name == "active_file" || name == "total_active_file") active = std::max(active, value);
  }
  const uint64_t used = *usage - std::min(*usage, inactive + active);
  return *limit - std::min(*limit, used);
}

uint64_t left_in_tree(const fs::path& root, const std::string& group, const char* limit_file, const char* usage_file) {
  uint64_t least = std::numeric_limits<uint64_t>::max();
  for (fs::path path = fs::path(group).relative_path();; path = path.parent_path()) {
    least = std::min(least, left_in(root / path, limit_file, usage_file));
    if (path.empty()) return least;
  }
}

uint64_t left_in_cgroups() {
  uint64_t least = std::numeric_limits<uint64_t>::max();
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1), group = line.substr(second + 1);
    if (controllers.empty())
      least = std::min(least, left_in_tree("/sys/fs/cgroup", group, "memory.max", "memory.current"));
    else if (controllers == "memory")
      least = std::min(least,
                       left_in_tree("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes", "memory.usage_in_bytes"));
  }
  return least;
}

}  // namespace

uint64_t available_memory() { return std::min(meminfo("MemAvailable"), left_in_cgroups()); }

uint64_t peak_rss() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<uint64_t>(usage.ru_maxrss) * 1024;
}

uint64_t resident_memory() {
  std::ifstream file("/proc/self/statm");
  uint64_t mapped = 0, resident = 0;
  file >> mapped >> resident;
  return resident * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

std::string cache_directory() {
  fs::path base;
  if (const char* xdg = std::getenv("XDG_CACHE_HOME"); xdg != nullptr && *xdg != 0) base = xdg;
  else if (const char* home = std::getenv("HOME"); home != nullptr && *home != 0) base = fs::path(home) / ".cache";
  else return "";
  std::error_code failed;
  fs::create_directories(base / "sluice", failed);
  return failed ? "" : (base / "sluice").string();
}

std::string build_id() {
  struct stat st {};
  if (::stat("/proc/self/exe", &st) != 0) return "";
  return std::to_string(st.st_size) + "-" + std::to_string(st.st_mtim.tv_sec);
}

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  return "unknown CPU";
}

}  // namespace sluice::engine
