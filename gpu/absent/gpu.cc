// What a build without CUDA says.
#include "gpu/gpu.h"

namespace sluice::gpu {
namespace {
Status absent() { return Status(Code::unavailable, "this build has no GPU device"); }
}  // namespace

Result<std::unique_ptr<Gpu>> open_gpu(const GpuRequest&) { return absent(); }
Result<GpuSpace> gpu_space(int) { return absent(); }
std::string gpu_library(int) { return {}; }
uint64_t gpu_memory_cost(uint64_t bytes) { return bytes; }
uint64_t kernel_scratch_bytes(const ScratchShape&) { return 0; }

}  // namespace sluice::gpu
