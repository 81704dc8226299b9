// TileProduct by oneDNN's matmul primitive, versions 2 and 3.
//
// Primitives are made and run with one OpenMP thread: the threads are ours. Where `new` fails while a primitive is
// made, version 2 calls std::terminate() itself; all other lack of memory is a Status.
#include "cpu/tile_product.h"

#include <dlfcn.h>

#include <array>
#include <cstring>
#include <dnnl.hpp>
#include <string_view>
#include <vector>

#include "core/error.h"

namespace sluice::cpu {
namespace {

using dnnl::matmul;
using dnnl::memory;

// Of the OpenMP runtime that the library brings, if it brings one.
template <class Function>
Function* openmp(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_DEFAULT, name));
}

// The calling thread starts no others in its scope.
class OneThread {
 public:
  OneThread() {
    if (auto* most = openmp<int()>("omp_get_max_threads"); most != nullptr) before_ = most();
    set(1);
  }
  ~OneThread() {
    if (before_ > 0) set(before_);
  }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

  static void set(int n) {
    static auto* const set_threads = openmp<void(int)>("omp_set_num_threads");
    if (set_threads != nullptr) set_threads(n);
  }

 private:
  int before_ = 0;
};

// Version 2 describes an operation before a primitive, version 3 only the primitive.
template <class Matmul>
typename Matmul::primitive_desc describe(const dnnl::engine& engine, const memory::desc& a, const memory::desc& b,
                                         const memory::desc& c, const dnnl::primitive_attr& attributes) {
  if constexpr (requires { typename Matmul::desc; })
    return typename Matmul::primitive_desc(typename Matmul::desc(a, b, c), attributes, engine);
  else return typename Matmul::primitive_desc(engine, a, b, c, attributes);
}

matmul::primitive_desc describe(const dnnl::engine& engine, uint32_t cols, bool accumulate) {
  constexpr memory::dim rows = act_group, tokens = act_group;
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (accumulate) {
    dnnl::post_ops sum;
    sum.append_sum(1.0f);
    attributes.set_post_ops(sum);
  }
  using Type = memory::data_type;
  using Tag = memory::format_tag;
  return describe<matmul>(engine, {{rows, cols}, Type::bf16, Tag::ab}, {{cols, tokens}, Type::bf16, Tag::BA16a64b2a},
                          {{rows, tokens}, Type::f32, Tag::ab}, attributes);
}

// What a thread calls with; the library wants its own handles of memory.
struct Handles {
  memory a, b, c, scratch;
};

// Calls of one width.
struct Width {
  std::array<matmul, 2> products;  // that replace, that accumulate
  std::vector<Handles> threads;
};

class OneDnn final : public TileProduct {
 public:
  OneDnn(uint32_t n_threads, std::byte* scratch, uint64_t stride)
      : scratch_(scratch), stride_(stride), engine_(dnnl::engine::kind::cpu, 0) {
    for (uint32_t i = 0; i < n_threads; ++i) streams_.emplace_back(engine_);
  }

  Status start() {
    SLUICE_RETURN_IF_ERROR(prepare(most_cols));
    const dnnl_version_t* v = dnnl_version();
    name_ = fmt::format("oneDNN {}.{}.{} {}", v->major, v->minor, v->patch, kernel_);
    return {};
  }

  ActFormat format() const override { return ActFormat::bf16; }

  Status prepare(uint32_t cols) override {
    SLUICE_CHECK(cols > 0 && cols <= most_cols && cols % unit == 0);
    std::unique_ptr<Width>& width = widths_[cols / unit - 1];
    if (width != nullptr) return {};
    try {
      const OneThread alone;
      auto made = std::make_unique<Width>();
      SLUICE_RETURN_IF_ERROR(make(cols, *made));
      width = std::move(made);
      return {};
    } catch (const dnnl::error& e) {
      return error(e.status == dnnl_out_of_memory ? Code::over_budget : Code::unsupported,
                   "oneDNN has no product of bf16 tiles of {} columns: {}", cols, e.what());
    } catch (const std::bad_alloc&) {
      return error(Code::over_budget, "no memory for oneDNN's product of {} columns", cols);
    }
  }

  bool multiply(const TileCall& call, uint32_t thread) override {
    thread_local const bool alone = [] {
      OneThread::set(1);
      return true;
    }();
    const Width& width = *widths_[call.cols / unit - 1];
    const Handles& h = width.threads[thread];
    const auto at = [](const memory& m, const void* p) {
      return dnnl_memory_set_data_handle(m.get(), const_cast<void*>(p)) == dnnl_success;
    };
    const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, h.a.get()},
                                         {DNNL_ARG_WEIGHTS, h.b.get()},
                                         {DNNL_ARG_DST, h.c.get()},
                                         {DNNL_ARG_SCRATCHPAD, h.scratch.get()}};
    try {
      return alone && at(h.a, call.a) && at(h.b, call.b) && at(h.c, call.c) &&
             dnnl_primitive_execute(width.products[call.accumulate].get(), streams_[thread].get(), std::size(arguments),
                                    arguments) == dnnl_success;
    } catch (const std::bad_alloc&) {
      return false;
    }
  }

  const std::string& name() const override { return name_; }

 private:
  static constexpr uint32_t unit = 32;

  Status make(uint32_t cols, Width& width) {
    for (const bool accumulate : {false, true}) {
      const matmul::primitive_desc description = describe(engine_, cols, accumulate);
      const std::string_view kernel = description.impl_info_str();
      if (kernel.starts_with("ref") || kernel.starts_with("gemm"))
        return error(Code::unsupported, "oneDNN has no fast product of bf16 tiles for this CPU");
      const memory::desc scratch = description.scratchpad_desc();
      if (scratch.get_size() > scratch_bytes)
        return error(Code::unsupported, "oneDNN wants {} of scratch for {} columns, and gets {}",
                     format_size(scratch.get_size()), cols, format_size(scratch_bytes));
      kernel_ = kernel;
      width.products[accumulate] = matmul(description);
      if (accumulate) make_handles(description, width);
    }
    return {};
  }

  // Those of the product that accumulates serve both: it needs the more scratch.
  void make_handles(const matmul::primitive_desc& d, Width& width) {
    for (uint32_t i = 0; i < streams_.size(); ++i)
      width.threads.push_back({memory(d.src_desc(), engine_, nullptr), memory(d.weights_desc(), engine_, nullptr),
                               memory(d.dst_desc(), engine_, nullptr),
                               memory(d.scratchpad_desc(), engine_, scratch_ + i * stride_)});
  }

  std::byte* const scratch_;
  const uint64_t stride_;
  const dnnl::engine engine_;
  std::vector<dnnl::stream> streams_;  // by thread
  std::string kernel_, name_;
  std::array<std::unique_ptr<Width>, most_cols / unit> widths_;
};

Result<std::unique_ptr<TileProduct>> make(uint32_t n_threads, std::byte* scratch, uint64_t stride) {
  try {
    auto product = std::make_unique<OneDnn>(n_threads, scratch, stride);
    SLUICE_RETURN_IF_ERROR(product->start());
    return std::unique_ptr<TileProduct>(std::move(product));
  } catch (const dnnl::error& e) {
    return error(Code::unavailable, "oneDNN does not start: {}", e.what());
  }
}

}  // namespace

TileMaker bf16_tiles() { return make; }

}  // namespace sluice::cpu
