#include "gpu/cublaslt.h"

#include <dlfcn.h>

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/error.h"
#include "gpu/dense_product.h"

namespace sluice::gpu {
namespace {

Status check(int result, const char* doing) {
  if (result == 0) return {};
  return error(result == 3 ? Code::over_budget : Code::unavailable, "cuBLASLt: {}: error {}", doing, result);
}

struct Shape {
  uint32_t rows, cols, n_tokens, out_stride;
  uint64_t x_stride;
  bool operator==(const Shape&) const = default;
};

// One product as the library was asked for it. To the library all matrices are column-major: the weights are
// cols x rows, transposed by it, x is cols x tokens and out rows x tokens.
class Product {
 public:
  Product(const CublasLt& library, const Shape& shape) : library_(library), shape_(shape) {}
  Product(const Product&) = delete;
  Product& operator=(const Product&) = delete;
  ~Product() {
    for (const CublasLt::Layout layout : {weights_, x_, out_})
      if (layout != nullptr) library_.layout_destroy(layout);
    if (operation_ != nullptr) library_.operation_destroy(operation_);
  }

  Status prepare(CublasLt::Handle handle) {
    const CublasLt& l = library_;
    const int transpose = CublasLt::transpose;
    SLUICE_RETURN_IF_ERROR(
        check(l.operation_create(&operation_, CublasLt::compute_f32, CublasLt::type_f32), "making an operation"));
    SLUICE_RETURN_IF_ERROR(
        check(l.operation_set(operation_, CublasLt::transpose_a, &transpose, sizeof transpose), "transposing"));
    SLUICE_RETURN_IF_ERROR(layout(&weights_, CublasLt::type_bf16, shape_.cols, shape_.rows, shape_.cols));
    SLUICE_RETURN_IF_ERROR(layout(&x_, CublasLt::type_bf16, shape_.cols, shape_.n_tokens, shape_.x_stride));
    SLUICE_RETURN_IF_ERROR(layout(&out_, CublasLt::type_f32, shape_.rows, shape_.n_tokens, shape_.out_stride));
    return choose(handle);
  }

  Status run(CublasLt::Handle handle, cudaStream_t stream, const DenseCall& call) const {
    const float one = 1.0f, beta = call.accumulate ? 1.0f : 0.0f;
    return check(library_.matmul(handle, operation_, &one, call.weights, weights_, call.x, x_, &beta, call.out, out_,
                                 call.out, out_, &algorithm_, nullptr, 0, stream),
                 "a product");
  }

  const Shape& shape() const { return shape_; }

 private:
  Status layout(CublasLt::Layout* made, int type, uint64_t rows, uint64_t cols, uint64_t leading) {
    return check(library_.layout_create(made, type, rows, cols, static_cast<int64_t>(leading)), "making a layout");
  }

  // No workspace, and so no sums that several blocks share: an element's sum is made in one place.
  Status choose(CublasLt::Handle handle) {
    CublasLt::Preference preference = nullptr;
    SLUICE_RETURN_IF_ERROR(check(library_.preference_create(&preference), "making a preference"));
    const size_t workspace = 0;
    const uint32_t schemes = 0;
    CublasLt::Heuristic best{};
    int found = 0;
    int result = library_.preference_set(preference, CublasLt::max_workspace_bytes, &workspace, sizeof workspace);
    if (result == 0)
      result = library_.preference_set(preference, CublasLt::reduction_schemes, &schemes, sizeof schemes);
    if (result == 0)
      result = library_.choose(handle, operation_, weights_, x_, out_, out_, preference, 1, &best, &found);
    library_.preference_destroy(preference);
    SLUICE_RETURN_IF_ERROR(check(result, "choosing a kernel"));
    if (found == 0 || best.state != 0)
      return error(Code::unsupported, "cuBLASLt has no kernel for {} rows, {} columns and {} tokens", shape_.rows,
                   shape_.cols, shape_.n_tokens);
    algorithm_ = best.algorithm;
    return {};
  }

  const CublasLt& library_;
  const Shape shape_;
  CublasLt::Operation operation_ = nullptr;
  CublasLt::Layout weights_ = nullptr, x_ = nullptr, out_ = nullptr;
  CublasLt::Algorithm algorithm_{};
};

class LibraryProduct : public DenseProduct {
 public:
  explicit LibraryProduct(const CublasLt& library) : library_(library) {}
  ~LibraryProduct() override {
    products_.clear();
    if (handle_ != nullptr) library_.destroy(handle_);
  }

  Status start() {
    SLUICE_RETURN_IF_ERROR(check(library_.create(&handle_), "starting"));
    const size_t v = library_.version();  // 130100 or, before 13, 120900
    name_ = fmt::format("cuBLASLt {}.{}.{}", v / 10000, v / 100 % 100, v % 100);
    return {};
  }
  const std::string& name() const override { return name_; }

  Status multiply(cudaStream_t stream, const DenseCall& call) override {
    const Shape shape{call.rows, call.cols, call.n_tokens, call.out_stride, call.x_stride};
    const std::lock_guard lock(mutex_);
    for (const auto& product : products_)
      if (product->shape() == shape) return product->run(handle_, stream, call);
    auto product = std::make_unique<Product>(library_, shape);
    SLUICE_RETURN_IF_ERROR(product->prepare(handle_));
    if (products_.size() == most_products) products_.erase(products_.begin());
    products_.push_back(std::move(product));
    return products_.back()->run(handle_, stream, call);
  }

 private:
  static constexpr size_t most_products = 256;

  const CublasLt library_;
  std::string name_;
  CublasLt::Handle handle_ = nullptr;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Product>> products_;  // of the shapes so far
};

std::unique_ptr<DenseProduct> make(int device) {
  auto library = CublasLt::load();
  int before = 0;
  if (!library.ok() || cudaGetDevice(&before) != cudaSuccess || cudaSetDevice(device) != cudaSuccess) return nullptr;
  auto product = std::make_unique<LibraryProduct>(*library);
  const Status started = product->start();
  cudaSetDevice(before);
  if (!started.ok()) return nullptr;
  return product;
}

}  // namespace

Result<CublasLt> CublasLt::load() {
  void* library = nullptr;
  for (const char* name : {"libcublasLt.so.13", "libcublasLt.so.12"})
    if (library == nullptr) library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return Status(Code::unavailable, "libcublasLt.so.13 and .12 are not installed");
  CublasLt l{};
  const char* missing = nullptr;
  const auto find = [&](const char* name, auto& function) {
    function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(library, name));
    if (function == nullptr) missing = name;
  };
  find("cublasLtCreate", l.create);
  find("cublasLtDestroy", l.destroy);
  find("cublasLtGetVersion", l.version);
  find("cublasLtMatmulDescCreate", l.operation_create);
  find("cublasLtMatmulDescDestroy", l.operation_destroy);
  find("cublasLtMatmulDescSetAttribute", l.operation_set);
  find("cublasLtMatrixLayoutCreate", l.layout_create);
  find("cublasLtMatrixLayoutDestroy", l.layout_destroy);
  find("cublasLtMatmulPreferenceCreate", l.preference_create);
  find("cublasLtMatmulPreferenceDestroy", l.preference_destroy);
  find("cublasLtMatmulPreferenceSetAttribute", l.preference_set);
  find("cublasLtMatmulAlgoGetHeuristic", l.choose);
  find("cublasLtMatmul", l.matmul);
  if (missing == nullptr) return l;  // the library stays loaded
  dlclose(library);
  return error(Code::unavailable, "libcublasLt has no {}", missing);
}

DenseProduct* dense_product(int device) {
  static std::mutex mutex;
  // Not destroyed at exit: CUDA may be gone by then.
  static auto& all = *new std::vector<std::pair<int, std::unique_ptr<DenseProduct>>>();
  const std::lock_guard lock(mutex);
  for (const auto& [id, product] : all)
    if (id == device) return product.get();
  all.emplace_back(device, make(device));
  return all.back().second.get();
}

std::string dense_product_name(int device) {
  const DenseProduct* product = dense_product(device);
  return product == nullptr ? "mma" : product->name();
}

}  // namespace sluice::gpu
