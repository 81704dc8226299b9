// What the operating system tells about memory and files.
#pragma once

#include <cstdint>
#include <string>

namespace sluice::engine {

// Bytes that may still be taken without pushing anything out: the least of what the kernel calls
// available and what is left of the cgroups (v1 or v2) that this process is in.
uint64_t available_memory();

uint64_t peak_rss();         // of this process, bytes
uint64_t resident_memory();  // the same now

// "$XDG_CACHE_HOME/sluice" or "~/.cache/sluice", made if it is not there; empty where there is no home.
std::string cache_directory();

// Tells this build of the program from others: size and time of its file.
std::string build_id();

// The model name in /proc/cpuinfo.
std::string cpu_name();

}  // namespace sluice::engine
