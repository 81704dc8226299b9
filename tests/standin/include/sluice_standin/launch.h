// launch_packed() of gpu/launch.h for the stand-in: the kernel's arguments are copied and the stream's thread runs
// the grid, block by block.
#pragma once

#include <sluice_standin/enqueue.h>

namespace standin {

template <class... P>
struct PackedCall {
  void (*kernel)(P...);
  std::tuple<P...> arguments;
  static void run(const void* packed) {
    const auto* self = static_cast<const PackedCall*>(packed);
    std::apply(self->kernel, self->arguments);
  }
};

}  // namespace standin

namespace sluice::gpu {

template <class... P>
cudaError_t launch_packed(cudaStream_t stream, const char* name, const LaunchShape& shape, void (*kernel)(P...),
                          std::tuple<P...>& arguments) {
  const standin::PackedCall<P...> packed{kernel, arguments};
  static_assert(alignof(decltype(packed)) <= 16);
  const standin::LaunchDims dims{shape.grid_x,  shape.grid_y,  shape.grid_z,
                                 shape.block_x, shape.block_y, shape.shared_bytes, shape.early};
  return standin::launch(stream, name, dims, standin::PackedCall<P...>::run, &packed, sizeof(packed));
}

}  // namespace sluice::gpu
