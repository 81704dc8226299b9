#include "engine/overrides.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <memory>

#include "core/error.h"
#include "offload/plan/planner.h"

namespace sluice::engine {
namespace {

using plan::any_site;
using plan::host_site;
constexpr uint8_t gpu_site = 1;

class Expression {
 public:
  static Result<Expression> compile(std::string_view text) {
    int code = 0;
    PCRE2_SIZE offset = 0;
    Expression e;
    e.code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0, &code, &offset, nullptr));
    if (e.code_ == nullptr)
      return error(Code::invalid_argument, "-ot {}: not an expression, from character {} on", text, offset + 1);
    e.match_.reset(pcre2_match_data_create_from_pattern(e.code_.get(), nullptr));
    return e;
  }
  // Anywhere in `name`.
  bool matches(const std::string& name) const {
    return pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(name.data()), name.size(), 0, 0, match_.get(),
                       nullptr) > 0;
  }

 private:
  struct Free {
    void operator()(pcre2_code* code) const { pcre2_code_free(code); }
    void operator()(pcre2_match_data* match) const { pcre2_match_data_free(match); }
  };
  std::unique_ptr<pcre2_code, Free> code_;
  std::unique_ptr<pcre2_match_data, Free> match_;
};

class Pins {
 public:
  Pins(const EngineOptions& options, const Graph& graph)
      : o_(options), g_(graph), sites_(graph.ops.size(), any_site), explicit_(graph.ops.size(), false) {}

  Result<std::vector<uint8_t>> run() {
    if (o_.gpu_layers != EngineOptions::automatic_layers) pin_layers();
    SLUICE_RETURN_IF_ERROR(pin_ffns());
    for (const std::string& rule : o_.tensor_places) SLUICE_RETURN_IF_ERROR(pin_tensors(rule));
    const bool none = std::all_of(sites_.begin(), sites_.end(), [](uint8_t site) { return site == any_site; });
    return none ? std::vector<uint8_t>() : sites_;
  }

 private:
  // The last n layers with their KV, and the head where n is more than there are layers; the others on the CPU.
  void pin_layers() {
    uint32_t layer = 0;
    const uint32_t first = g_.n_layers - std::min(g_.n_layers, o_.gpu_layers);
    for (size_t i = 1; i + 1 < g_.ops.size(); ++i) {
      if (const auto* in = std::get_if<AttentionInOp>(&g_.ops[i])) layer = in->layer;
      sites_[i] = layer >= first ? gpu_site : host_site;
    }
    sites_.back() = o_.gpu_layers > g_.n_layers ? gpu_site : host_site;
  }

  Status pin_ffns() {
    if (o_.cpu_expert_layers > 0)
      return error(Code::unsupported, "--n-cpu-moe: {} has no experts; --n-cpu-ffn is for its FFNs", g_.name);
    if (o_.cpu_ffn_layers > g_.n_layers)
      return error(Code::invalid_argument, "--n-cpu-ffn {}: the model has {} layers", o_.cpu_ffn_layers, g_.n_layers);
    uint32_t layer = 0;
    for (size_t i = 0; i < g_.ops.size(); ++i) {
      if (std::holds_alternative<FfnOp>(g_.ops[i]) && layer++ < o_.cpu_ffn_layers) sites_[i] = host_site;
    }
    return {};
  }

  // "REGEX=CPU"; of several rules that match a tensor the first counts.
  Status pin_tensors(const std::string& rule) {
    const size_t equals = rule.rfind('=');
    const std::string place = equals == std::string::npos ? "" : rule.substr(equals + 1);
    if (place != "CPU" && place != "GPU")
      return error(Code::invalid_argument, "-ot {}: must be REGEX=CPU or REGEX=GPU", rule);
    SLUICE_ASSIGN_OR_RETURN(const Expression expression, Expression::compile(rule.substr(0, equals)));
    size_t matched = 0;
    for (size_t i = 0; i < g_.ops.size(); ++i) {
      size_t of_op = 0;
      const std::vector<TensorId> ids = matrices(g_.ops[i]);
      for (const TensorId id : ids) of_op += expression.matches(g_.tensor(id).name);
      if (of_op == 0) continue;
      matched += of_op;
      if (of_op < ids.size())
        return error(Code::unsupported,
                     "-ot {}: {} of the {} matrices that {} computes with: they are at one device, so the expression "
                     "has to match all of them",
                     rule, of_op, ids.size(), describe(i));
      if (!explicit_[i]) sites_[i] = place == "GPU" ? gpu_site : host_site;
      explicit_[i] = true;
    }
    if (matched == 0) return error(Code::invalid_argument, "-ot {}: no matrix has such a name", rule);
    return {};
  }

  std::string describe(size_t op) const {
    uint32_t layer = 0;
    for (size_t i = 0; i <= op; ++i)
      if (const auto* in = std::get_if<AttentionInOp>(&g_.ops[i])) layer = in->layer;
    return fmt::format("{} of layer {}", name(g_.ops[op]), layer);
  }

  const EngineOptions& o_;
  const Graph& g_;
  std::vector<uint8_t> sites_;
  std::vector<bool> explicit_;
};

}  // namespace

Result<std::vector<uint8_t>> pinned_ops(const EngineOptions& options, const Graph& graph) {
  return Pins(options, graph).run();
}

}  // namespace sluice::engine
