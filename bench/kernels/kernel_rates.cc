// sluice_bench_kernels [threads [avx512|avx2|prompts]]: every kernel's rate by type, shape, tokens and ISA, beside the
// rates of the memory (GB/s) and of the 8-bit units (GOP/s), measured first. prompts: only products of prompts, by our
// kernels and, where there is one, by the library.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "bench/kernels/machine_rates.h"
#include "cpu/cpu_device.h"
#include "cpu/host_memory.h"
#include "cpu/isa.h"

using namespace sluice;

namespace {

constexpr uint64_t cold_bytes = uint64_t{192} << 20;  // well beyond the last cache
constexpr uint64_t act_bytes = uint64_t{128} << 20;

struct Buffers {
  std::unique_ptr<cpu::HostMemory> weights, x, out;
  std::byte* at(const std::unique_ptr<cpu::HostMemory>& memory) const { return memory->base(); }
};

// Weights and activations whose scales are ordinary numbers: any bytes below 0x40 make small positive
// halves, and no float is so small that the processor takes longer over it.
void fill(std::byte* p, uint64_t bytes) {
  uint32_t state = 1;
  for (uint64_t i = 0; i < bytes; i += 4) {
    state = state * 1664525u + 1013904223u;
    const uint32_t word = (state >> 2 & 0x2f2f2f2f) | 0x30000000;
    std::memcpy(p + i, &word, 4);
  }
}

struct Rates {
  double memory, int8;
};

// As many calls in a row, on different weights, as make up cold_bytes.
struct Job {
  const cpu::KernelTable* kernels;
  std::vector<KernelCall> calls;
};

void run_job(const void* context, cpu::Share share) {
  const auto& job = *static_cast<const Job*>(context);
  for (const KernelCall& call : job.calls) run(*job.kernels, call, share);
}

void report(const char* isa, const std::string& what, const Rates& rates, const Cost& cost, double seconds) {
  const double bytes = static_cast<double>(cost.bytes) / seconds, ops = static_cast<double>(cost.flops) / seconds;
  std::printf("%-7s %-34s %9.1f us %7.2f GB/s %3.0f %% %8.1f GOP/s %3.0f %%\n", isa, what.c_str(), seconds * 1e6,
              bytes * 1e-9, 100 * bytes / rates.memory, ops * 1e-9, 100 * ops / rates.int8);
}

void bench_job(cpu::Team& team, const std::string& what, const Rates& rates, const Job& job) {
  const double seconds = bench::seconds_of(team, run_job, &job) / static_cast<double>(job.calls.size());
  report(job.kernels->isa, what, rates, cost(job.calls.front()), seconds);
}

void bench_matmul(cpu::Team& team, cpu::Isa isa, const Rates& rates, const Buffers& b, DType type, uint32_t rows,
                  uint32_t cols) {
  for (const uint32_t tokens : {1u, 2u, 4u, 8u, 16u, 64u, 512u}) {
    const uint64_t bytes = rows * row_bytes(type, cols);
    Job job{&cpu::kernels(isa), {}};
    const uint64_t n = tokens > 16 ? 1 : std::max<uint64_t>(1, cold_bytes / bytes);
    const bool q8 = info(type).block_elements > 1;
    for (uint64_t i = 0; i < n; ++i)
      job.calls.push_back(MatmulCall{b.at(b.weights) + i * bytes, type, rows, cols, b.at(b.x),
                                     q8 ? ActFormat::q8 : ActFormat::f32, tokens, reinterpret_cast<float*>(b.at(b.out)),
                                     rows, nullptr, false});
    char what[64];
    std::snprintf(what, sizeof what, "matmul %s %ux%u n=%u", info(type).name.data(), rows, cols, tokens);
    bench_job(team, what, rates, job);
  }
}

void bench_attention(cpu::Team& team, cpu::Isa isa, const Rates& rates, const Buffers& b) {
  struct Shape {
    uint32_t heads, kv_heads, head_dim;
  };
  constexpr uint32_t page_tokens = 64;
  for (const Shape s : {Shape{9, 3, 64}, Shape{32, 8, 128}})
    for (const uint32_t tokens : {1u, 512u}) {
      const uint32_t context = 512;
      std::vector<std::byte*> k, v;
      const uint64_t page = uint64_t{page_tokens} * s.kv_heads * s.head_dim * 2;
      for (uint32_t i = 0; i < context / page_tokens; ++i) {
        k.push_back(b.at(b.weights) + 2 * i * page);
        v.push_back(k.back() + page);
      }
      const KvSpan span{k.data(), v.data(), 0, context / page_tokens, context - tokens};
      std::vector<TokenSlot> slots;
      for (uint32_t t = 0; t < tokens; ++t) slots.push_back({0, context - tokens + t, 0});
      Job job{&cpu::kernels(isa),
              {AttentionCall{reinterpret_cast<float*>(b.at(b.x)), slots.data(), &span, tokens, s.heads, s.kv_heads,
                             s.head_dim, page_tokens, KvType::f16, 0.1f, 0, 0, false, true, true, nullptr,
                             reinterpret_cast<float*>(b.at(b.out))}}};
      char what[64];
      std::snprintf(what, sizeof what, "attention %u/%u heads of %u, n=%u", s.heads, s.kv_heads, s.head_dim, tokens);
      bench_job(team, what, rates, job);
    }
}

void bench_small(cpu::Team& team, cpu::Isa isa, const Rates& rates, const Buffers& b) {
  auto* x = reinterpret_cast<float*>(b.at(b.x));
  auto* y = reinterpret_cast<float*>(b.at(b.out));
  for (const uint32_t n : {1u, 512u}) {
    const std::string suffix = " n=" + std::to_string(n);
    const auto bench = [&](const char* what, const KernelCall& call) {
      bench_job(team, what + suffix, rates, Job{&cpu::kernels(isa), {call}});
    };
    bench("rms_norm 576", RmsNormCall{x, x, 1e-5f, n, 576, y});
    bench("quantize 576", QuantizeCall{x, ActFormat::q8, n, 576, b.at(b.out)});
    bench("quantize 1536", QuantizeCall{x, ActFormat::q8, n, 1536, b.at(b.out)});
    bench("gated_act 1536", GatedActCall{x, x, Activation::silu, n, 1536, y});
    bench("rope 9x64", RopeCall{y, x, n, 9, 64, 64, false});
  }
}

void bench_all(cpu::Team& team, cpu::Isa isa, const Rates& rates, const Buffers& b) {
  bench_matmul(team, isa, rates, b, DType::q4_1, 1536, 576);
  bench_matmul(team, isa, rates, b, DType::q4_1, 576, 1536);
  bench_matmul(team, isa, rates, b, DType::q8_0, 49152, 576);
  bench_matmul(team, isa, rates, b, DType::q4_k, 14336, 4096);
  bench_matmul(team, isa, rates, b, DType::q4_k, 4096, 14336);
  bench_matmul(team, isa, rates, b, DType::q6_k, 4096, 14336);
  bench_matmul(team, isa, rates, b, DType::q6_k, 2048, 8192);
  bench_matmul(team, isa, rates, b, DType::q4_0, 4096, 4096);
  bench_attention(team, isa, rates, b);
  bench_small(team, isa, rates, b);
}

// The least of three runs of `calls`, as a queue runs them; in seconds for one.
double seconds_of(Queue& queue, const std::vector<KernelCall>& calls) {
  double least = 1e30;
  for (int i = 0; i < 4; ++i) {
    const uint64_t start = now_ns();
    for (const KernelCall& call : calls) queue.launch(call);
    if (const Status status = queue.signal().wait(); !status.ok()) {
      std::fprintf(stderr, "%s\n", status.message().c_str());
      std::exit(1);
    }
    if (i > 0) least = std::min(least, static_cast<double>(now_ns() - start) * 1e-9);  // the first one prepares
  }
  return least / static_cast<double>(calls.size());
}

// A prompt's product and the conversion of its activations, on the queue that a run has.
void bench_prompt(cpu::CpuDevice& device, const Buffers& b, DType type, uint32_t rows, uint32_t cols) {
  for (const uint32_t tokens : {32u, 64u, 128u, 512u, 1024u}) {
    const uint64_t bytes = rows * row_bytes(type, cols);
    const ActFormat format = device.act_format(type, Compute::fast, true);
    // Activations of these sizes and their packed form share a buffer.
    auto* x = reinterpret_cast<float*>(b.at(b.x));
    std::byte* packed = b.at(b.x) + act_bytes / 2;
    const double convert = seconds_of(device.queue(), {QuantizeCall{x, format, tokens, cols, packed}});
    std::vector<KernelCall> calls;
    for (uint64_t i = 0; i < std::max<uint64_t>(1, std::min<uint64_t>(4, cold_bytes / bytes)); ++i)
      calls.push_back(MatmulCall{b.at(b.weights) + i * bytes, type, rows, cols, packed, format, tokens,
                                 reinterpret_cast<float*>(b.at(b.out)), rows, nullptr, false, true});
    const double seconds = seconds_of(device.queue(), calls);
    std::printf("prompt %s %ux%u n=%-5u %9.1f us %8.1f GFLOP/s, %4.2f ns a weight and thread; activations %7.1f us\n",
                info(type).name.data(), rows, cols, tokens, seconds * 1e6, 2e-9 * rows * cols * tokens / seconds,
                seconds * device.n_threads() * 1e9 / rows / cols, convert * 1e6);
  }
}

void bench_prompts(uint32_t threads, const Buffers& b) {
  for (const cpu::Prompts prompts : {cpu::Prompts::int8, cpu::Prompts::bf16, cpu::Prompts::wide8}) {
    cpu::CpuOptions options;
    options.n_threads = threads;
    options.prompts = prompts;
    const auto device = cpu::CpuDevice::create(options);
    if (!device.ok()) {
      std::printf("not here: %s\n", device.status().message().c_str());
      continue;
    }
    std::printf("%s\n", (*device)->describe().c_str());
    for (const DType type : {DType::q4_0, DType::q5_0, DType::q8_0, DType::q4_k, DType::q6_k})
      bench_prompt(**device, b, type, 4096, 4096);
    bench_prompt(**device, b, DType::q4_k, 14336, 4096);
    bench_prompt(**device, b, DType::q4_k, 4096, 14336);
    bench_prompt(**device, b, DType::q4_k, 1024, 4096);
    bench_prompt(**device, b, DType::q4_1, 1536, 576);
    bench_prompt(**device, b, DType::q4_1, 576, 1536);
  }
}

std::unique_ptr<cpu::HostMemory> allocate(uint64_t bytes) {
  auto memory = cpu::HostMemory::create(bytes, true);
  if (memory.ok()) return std::move(memory).value();
  std::fprintf(stderr, "%s\n", memory.status().message().c_str());
  std::exit(1);
}

}  // namespace

int main(int argc, char** argv) {
  const int asked = argc > 1 ? std::atoi(argv[1]) : 1;
  const std::string only_isa = argc > 2 ? argv[2] : "";
  cpu::TeamOptions options;
  options.n_threads = asked > 0 ? static_cast<uint32_t>(asked) : 1;
  for (uint32_t i = 0; i < options.n_threads; ++i) options.cores.push_back(i);
  Buffers b{allocate(cold_bytes + (uint64_t{128} << 20)), allocate(act_bytes), allocate(act_bytes)};
  fill(b.at(b.weights), b.weights->capacity());
  fill(b.at(b.x), b.x->capacity());
  if (only_isa == "prompts") {  // by devices, whose threads this one must not have bound before
    bench_prompts(options.n_threads, b);
    return 0;
  }
  auto team = cpu::Team::create(options);
  if (!team.ok()) return 1;
  (*team)->bind_leader();
  const double memory = bench::read_rate(**team, {b.at(b.weights), b.weights->capacity()});
  std::printf("%u threads, memory %.1f GB/s\n", options.n_threads, memory * 1e-9);
  for (const cpu::Isa isa : {cpu::Isa::avx512, cpu::Isa::avx2}) {
    if (!cpu::supported(isa) || (!only_isa.empty() && only_isa != cpu::kernels(isa).isa)) continue;
    const Rates rates{memory, bench::int8_rate(**team, isa == cpu::Isa::avx512)};
    std::printf("%s: 8-bit %.0f GOP/s\n", cpu::kernels(isa).isa, rates.int8 * 1e-9);
    bench_all(**team, isa, rates, b);
  }
  return 0;
}
