// Scores token sequences and text with llama.cpp, for make_model_reference.py, which compiles this file
// against a build of llama.cpp. It is not part of the project's own build.
//
//   llama_score MODEL f32|f16 tokenize FILE    ids of the whole file, special tokens recognized, BOS first where
//                                              the model adds one
//   llama_score MODEL f32|f16 score FILE [N]   one sequence of ids a line in, one JSON array a line out: of
//                                              all tokens but the first, or of the last N
//   llama_score MODEL f32|f16 perplexity FILE CTX [CHUNKS]
//
// f32: F32 KV and plain attention. f16: what llama.cpp does by default (F16 KV, fused attention where it
// likes). Each sequence is evaluated as one batch from an empty cache. Logits are F32 as llama.cpp gives
// them; everything after them is double.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include "llama.h"

namespace {

using Ids = std::vector<llama_token>;

struct Scored {
  double logprob;  // natural logarithm of the probability of the token that came
  int argmax;
  double margin;  // best logit minus second best
};

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "llama_score: %s\n", what.c_str());
  std::exit(1);
}

std::string read_file(const char* path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) fail(std::string("cannot read ") + path);
  return {std::istreambuf_iterator<char>(in), {}};
}

class Scorer {
 public:
  Scorer(const char* path, bool exact) {
    llama_model_params mp = llama_model_default_params();
    mp.n_gpu_layers = 0;
    model_ = llama_model_load_from_file(path, mp);
    if (!model_) fail(std::string("cannot load ") + path);
    vocab_ = llama_model_get_vocab(model_);
    llama_context_params cp = llama_context_default_params();
    cp.n_ctx = cp.n_batch = 2048;
    cp.n_ubatch = 512;
    cp.n_threads = cp.n_threads_batch = 2;
    if (exact) {
      cp.type_k = cp.type_v = GGML_TYPE_F32;
      cp.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    }
    context_ = llama_init_from_model(model_, cp);
    if (!context_) fail("cannot make a context");
  }

  Ids tokenize(const std::string& text, bool add_special) const {
    Ids ids(text.size() + 8);
    const int n = llama_tokenize(vocab_, text.data(), static_cast<int>(text.size()), ids.data(),
                                 static_cast<int>(ids.size()), add_special, true);
    if (n < 0) fail("cannot tokenize");
    ids.resize(static_cast<size_t>(n));
    return ids;
  }

  // Scores ids[i] from those before it, for i in [first, ids.size()), first > 0.
  std::vector<Scored> score(const Ids& ids, size_t first) {
    const int n = static_cast<int>(ids.size());
    llama_memory_clear(llama_get_memory(context_), true);
    llama_batch batch = llama_batch_init(n, 0, 1);
    batch.n_tokens = n;
    for (int i = 0; i < n; ++i) {
      batch.token[i] = ids[static_cast<size_t>(i)];
      batch.pos[i] = i;
      batch.n_seq_id[i] = 1;
      batch.seq_id[i][0] = 0;
      batch.logits[i] = i + 1 >= static_cast<int>(first);
    }
    if (llama_decode(context_, batch) != 0) fail("llama_decode failed");
    std::vector<Scored> result;
    for (size_t i = first; i < ids.size(); ++i) {
      result.push_back(one(llama_get_logits_ith(context_, static_cast<int>(i) - 1), ids[i]));
    }
    llama_batch_free(batch);
    return result;
  }

  bool adds_bos() const { return llama_vocab_get_add_bos(vocab_); }
  llama_token bos() const { return llama_vocab_bos(vocab_); }

 private:
  Scored one(const float* logits, llama_token id) const {
    const int n = llama_vocab_n_tokens(vocab_);
    int best = 0;
    for (int i = 1; i < n; ++i) {
      if (logits[i] > logits[best]) best = i;
    }
    double sum = 0, second = -INFINITY;
    for (int i = 0; i < n; ++i) {
      sum += std::exp(double{logits[i]} - logits[best]);
      if (i != best && logits[i] > second) second = logits[i];
    }
    return {double{logits[id]} - logits[best] - std::log(sum), best, logits[best] - second};
  }

  llama_model* model_;
  const llama_vocab* vocab_;
  llama_context* context_;
};

void print_ids(const Ids& ids) {
  for (size_t i = 0; i < ids.size(); ++i) std::printf("%s%d", i ? " " : "", ids[i]);
  std::printf("\n");
}

void print_scores(Scorer& scorer, const std::string& lines, size_t most) {
  std::istringstream in(lines);
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    const Ids ids{std::istream_iterator<llama_token>(words), {}};
    if (ids.size() < 2) continue;
    std::printf("[");
    const char* comma = "";
    for (const Scored& s : scorer.score(ids, ids.size() - std::min(most, ids.size() - 1))) {
      std::printf("%s[%.9g,%d,%.9g]", comma, s.logprob, s.argmax, s.margin);
      comma = ",";
    }
    std::printf("]\n");
  }
}

// llama.cpp's convention: windows that do not overlap, the second half of each scored but for the last
// prediction, BOS in place of a window's first token where the model adds one.
void print_perplexity(Scorer& scorer, const std::string& text, size_t n_ctx, size_t most_chunks) {
  const Ids ids = scorer.tokenize(text, true);
  double nll = 0;
  const size_t chunks = std::min(most_chunks, ids.size() / n_ctx);
  size_t count = 0;
  for (size_t at = 0; at < chunks * n_ctx; at += n_ctx) {
    Ids window(ids.begin() + static_cast<long>(at), ids.begin() + static_cast<long>(at + n_ctx));
    if (scorer.adds_bos()) window[0] = scorer.bos();
    for (const Scored& s : scorer.score(window, n_ctx / 2 + 1)) {
      nll -= s.logprob;
      ++count;
    }
  }
  if (count == 0) fail("the text is shorter than one window");
  std::printf("{\"ppl\": %.9g, \"n\": %zu, \"chunks\": %zu}\n", std::exp(nll / static_cast<double>(count)), count,
              chunks);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) fail("usage: llama_score MODEL f32|f16 tokenize|score|perplexity FILE [N | CTX [CHUNKS]]");
  llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
  llama_backend_init();
  Scorer scorer(argv[1], std::string(argv[2]) == "f32");
  const std::string mode = argv[3], input = read_file(argv[4]);
  const auto number = [&](int i, size_t fallback) { return i < argc ? std::strtoul(argv[i], nullptr, 10) : fallback; };
  if (mode == "tokenize") {
    print_ids(scorer.tokenize(input, true));
  } else if (mode == "score") {
    print_scores(scorer, input, number(5, SIZE_MAX));
  } else if (mode == "perplexity" && argc >= 6) {
    print_perplexity(scorer, input, number(5, 512), number(6, SIZE_MAX));
  } else {
    fail("unknown mode " + mode);
  }
}
