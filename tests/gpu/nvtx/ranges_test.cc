// NVTX as a tool sees it: this program is its own tool, by NVTX's static injection (nvtx3/nvtxDetail/nvtxInit.h).
#include "gpu/ranges.h"

#include <doctest/doctest.h>
#include <nvtx3/nvToolsExt.h>

#include <string>

namespace {

std::string told;
nvtxDomainHandle_t domain_made = nullptr;

// The tool's side of the calls.
nvtxDomainHandle_t NVTX_API create_domain(const char* name) {
  told += std::string("domain ") + name + ";";
  static char here;
  return domain_made = reinterpret_cast<nvtxDomainHandle_t>(&here);
}
int NVTX_API push(nvtxDomainHandle_t domain, const nvtxEventAttributes_t* attributes) {
  CHECK(domain == domain_made);
  CHECK(attributes->messageType == NVTX_MESSAGE_TYPE_ASCII);
  told += std::string(attributes->message.ascii) + "(";
  return 0;
}
int NVTX_API pop(nvtxDomainHandle_t domain) {
  CHECK(domain == domain_made);
  told += ")";
  return 0;
}

template <class F>
void take(NvtxFunctionPointer* const* table, unsigned id, F* function) {
  *table[id] = reinterpret_cast<NvtxFunctionPointer>(function);
}

int NVTX_API attach(NvtxGetExportTableFunc_t get_table) {
  const auto* callbacks = static_cast<const NvtxExportTableCallbacks*>(get_table(NVTX_ETID_CALLBACKS));
  if (callbacks == nullptr) return 0;
  NvtxFunctionTable table = nullptr;
  unsigned size = 0;
  if (callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE2, &table, &size) == 0) return 0;
  take(table, NVTX_CBID_CORE2_DomainCreateA, create_domain);
  take(table, NVTX_CBID_CORE2_DomainRangePushEx, push);
  take(table, NVTX_CBID_CORE2_DomainRangePop, pop);
  return 1;
}

}  // namespace

namespace sluice::gpu {

TEST_CASE("nvtx: a tool sees ranges nest, in the domain of sluice") {
  InitializeInjectionNvtx2_fnptr = attach;  // looked at by the first call
  Ranges* const ranges = profiler_ranges();
  REQUIRE(ranges != nullptr);
  CHECK(profiler_ranges() == ranges);
  ranges->begin("decode");
  const std::string name = "ffn 3";
  ranges->begin(name.c_str());
  ranges->end();
  ranges->end();
  CHECK(told == "domain sluice;decode(ffn 3())");
}

}  // namespace sluice::gpu
