// Ranges by NVTX (NVIDIA Tools Extension, version 3), in a domain of their own.
#include "gpu/ranges.h"

#include <nvtx3/nvToolsExt.h>

namespace sluice::gpu {
namespace {

class NvtxRanges : public Ranges {
 public:
  void begin(const char* name) override {
    nvtxEventAttributes_t attributes{};
    attributes.version = NVTX_VERSION;
    attributes.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
    attributes.messageType = NVTX_MESSAGE_TYPE_ASCII;
    attributes.message.ascii = name;
    nvtxDomainRangePushEx(domain_, &attributes);
  }
  void end() override { nvtxDomainRangePop(domain_); }

 private:
  const nvtxDomainHandle_t domain_ = nvtxDomainCreateA("sluice");
};

}  // namespace

// Never destroyed: a tool that is unloaded at exit is not to be called.
Ranges* profiler_ranges() {
  static NvtxRanges* const ranges = new NvtxRanges;
  return ranges;
}

}  // namespace sluice::gpu
