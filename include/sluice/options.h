// What can be asked of an Engine and of a generation. Defaults are what a user without flags gets.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace sluice {

// How files are read: `automatic` reads through the page cache what is in it and directly what is not.
enum class Load : uint8_t { automatic, direct, buffered };

// `fast` quantizes activations where weights are quantized and keeps KV in F16; `f32` dequantizes weights
// and computes in F32: the reference.
enum class Precision : uint8_t { fast, f32 };

// How the CPU multiplies prompts under Precision::fast, where weights are quantized: as 8-bit integers, as it decodes
// (int8) or with a scale for 256 columns instead of 32 (wide8), or as bf16 by oneDNN, where the build has it.
// `automatic`: wide8 where the processor has matrix units (AMX) for it.
enum class Prompts : uint8_t { automatic, int8, bf16, wide8 };

struct EngineOptions {
  static constexpr uint64_t automatic = UINT64_MAX;
  std::string model;          // path of a GGUF file, the first of a split one
  uint64_t ram = 0;           // hard budget in bytes of all that is held; 0: most of what is free, and less while
                              // others need it (Engine::resize)
  uint64_t vram = automatic;  // the same of a GPU's memory; automatic: most of what is free there; 0: no GPU
  uint32_t context = 0;       // tokens of a session; 0: the model's own, at most 4096
  uint32_t prompt = 0;        // tokens of the prompts to come, for which GPUs' plans are made; 0: typical ones
  uint32_t threads = 0;       // 0: one for each core that may be used
  uint32_t batch = 0;         // most tokens of one step; 0: the plan chooses. Never changes results
  uint32_t sessions = 1;      // that may exist at once
  uint32_t logit_rows = 1;    // rows of logits one step may give; scoring needs more than one
  Load load = Load::automatic;
  Precision precision = Precision::fast;
  Prompts prompts = Prompts::automatic;  // what cannot be kept is an error
  bool deterministic = false;            // forbid decisions that depend on what happens to be in memory
  std::string spill_directory;           // for KV that does not fit; empty: $TMPDIR or /tmp
  std::string machine_file;              // measured rates; empty: measured once and kept in the user's cache
  std::string trace_file;                // Chrome/Perfetto trace, written when the engine closes
  // Where decoding has to compute, for who knows better than the plan; what cannot be kept is an error.
  static constexpr uint32_t automatic_layers = UINT32_MAX;
  uint32_t gpu_layers = automatic_layers;  // so many of the last layers on the GPU with their KV, the others on the
                                           // CPU; with one more than there are also the output
  uint32_t cpu_ffn_layers = 0;             // FFNs of so many of the first layers on the CPU
  uint32_t cpu_expert_layers = 0;          // the same of routed experts
  std::vector<std::string> tensor_places;  // "REGEX=CPU", "REGEX=GPU": matrices whose names match
  std::function<void(uint64_t done, uint64_t total)> progress;  // bytes of weights loaded
  std::function<void(std::string_view)> warn;                   // one line each, with its remedy
};

struct SamplingOptions {
  float temperature = 0.8f;     // 0: greedy
  int32_t top_k = 40;           // 0: off
  float top_p = 0.95f;          // 1: off
  float min_p = 0.05f;          // 0: off
  float repeat_penalty = 1.0f;  // 1: off
  int32_t repeat_last_n = 64;   // -1: all
  uint64_t seed = 0;
};

struct GenerateOptions {
  SamplingOptions sampling;
  int64_t max_tokens = -1;  // -1: until the model stops or the context is full
  bool ignore_end = false;  // go on after an end-of-generation token
};

}  // namespace sluice
