#include "gpu/launch.h"

#include "core/error.h"

namespace sluice::gpu {

Status launch_refused(const LaunchInfo& info, const LaunchShape& shape, cudaError_t why) {
  return error(Code::unavailable, "kernel {}: launch of {}x{}x{} blocks of {}x{} threads, {} bytes shared: {}",
               info.name, shape.grid_x, shape.grid_y, shape.grid_z, shape.block_x, shape.block_y, shape.shared_bytes,
               cudaGetErrorString(why));
}

}  // namespace sluice::gpu
