#include "engine/text/pretokenizer_rules.h"

#include <array>

namespace sluice::engine {
namespace {

template <size_t N>
using List = std::array<std::string_view, N>;

// The parts that most expressions share.
#define SLUICE_CONTRACTION "'s|'t|'re|'ve|'m|'ll|'d"
#define SLUICE_ANY_CASE_CONTRACTION "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
#define SLUICE_SPACES R"(\s+(?!\S)|\s+)"
#define SLUICE_LINES_AND_SPACES R"(\s*[\r\n]+|\s+(?!\S)|\s+)"
#define SLUICE_GPT2 SLUICE_CONTRACTION R"(| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|)" SLUICE_SPACES
// Letters but a-z, and letters but A-Z: llama.cpp's reading of "upper or caseless" and "lower or caseless".
#define SLUICE_UPPER R"([^\P{L}a-z])"
#define SLUICE_LOWER R"([^\P{L}A-Z])"
#define SLUICE_LEAD R"([^\r\n\p{L}\p{N}]?)"
#define SLUICE_DEEPSEEK_WORDS                                                               \
  R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+)" \
  R"(| ?[\p{P}\p{S}]+[\r\n]*|)" SLUICE_LINES_AND_SPACES

constexpr List<2> default_names = {"", "default"};
constexpr List<4> default_patterns = {R"([\p{P}$+<=>\^~|]+)", SLUICE_GPT2, R"(\p{N}+)", "[0-9][0-9][0-9]"};

constexpr List<16> gpt2_names = {
    "gpt-2",  "phi-2", "jina-es", "jina-de", "gigachat", "jina-v2-es",  "jina-v2-de", "a.x-4.0",
    "mellum", "mpt",   "olmo",    "jais",    "trillion", "modern-bert", "exaone4",    "granite-docling"};
constexpr List<1> gpt2_patterns = {SLUICE_GPT2};

constexpr List<8> digit_names = {"smollm",    "starcoder", "refact",     "command-r",
                                 "codeshell", "exaone",    "minerva-7b", "mellum2"};
constexpr List<2> digit_patterns = {R"(\p{N})", SLUICE_GPT2};

constexpr List<9> llama3_names = {"llama-bpe", "llama3",   "llama-v3", "falcon3",     "falcon-h1",
                                  "pixtral",   "midm-2.0", "lfm2",     "jina-v5-nano"};
constexpr List<1> llama3_patterns = {SLUICE_ANY_CASE_CONTRACTION
                                     R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3})"
                                     R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|)" SLUICE_LINES_AND_SPACES};
constexpr List<3> dbrx_names = {"dbrx", "smaug-bpe", "chatglm-bpe"};
constexpr List<2> glm4_names = {"glm4", "glm5"};

constexpr List<9> qwen2_names = {"qwen2",  "deepseek-r1-qwen", "kormo",      "f2llmv2", "stablelm2",
                                 "megrez", "hunyuan",          "solar-open", "grok-2"};
constexpr List<1> qwen2_patterns = {SLUICE_ANY_CASE_CONTRACTION
                                    R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N})"
                                    R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|)" SLUICE_LINES_AND_SPACES};
constexpr List<1> qwen35_names = {"qwen35"};
constexpr List<1> qwen35_patterns = {SLUICE_ANY_CASE_CONTRACTION
                                     R"(|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N})"
                                     R"(| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|)" SLUICE_LINES_AND_SPACES};

constexpr List<4> deepseek3_names = {"deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"};
constexpr List<3> deepseek3_patterns = {R"(\p{N}{1,3})", R"([\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+)",
                                        SLUICE_DEEPSEEK_WORDS};
constexpr List<1> deepseek_coder_names = {"deepseek-coder"};
constexpr List<5> deepseek_coder_patterns = {R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)",
                                             R"([\x{4E00}-\x{9FA5}\x{0800}-\x{4E00}\x{AC00}-\x{D7FF}]+)", R"(\p{N})"};

constexpr List<1> falcon_names = {"falcon"};
constexpr List<3> falcon_patterns = {R"([\p{P}$+<=>\^~|`]+)", SLUICE_GPT2, "[0-9][0-9][0-9]"};

constexpr List<1> tekken_names = {"tekken"};
constexpr List<1> tekken_patterns = {SLUICE_LEAD SLUICE_UPPER
                                     "*" SLUICE_LOWER "+|" SLUICE_LEAD SLUICE_UPPER "+" SLUICE_LOWER
                                     "*"
                                     R"(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|)" SLUICE_LINES_AND_SPACES};

constexpr List<5> gpt4o_names = {"gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"};
constexpr List<1> gpt4o_patterns = {SLUICE_LEAD SLUICE_UPPER
                                    "*" SLUICE_LOWER "+(?:" SLUICE_ANY_CASE_CONTRACTION ")?|" SLUICE_LEAD SLUICE_UPPER
                                    "+" SLUICE_LOWER "*(?:" SLUICE_ANY_CASE_CONTRACTION
                                    ")?"
                                    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|)" SLUICE_LINES_AND_SPACES};

constexpr std::array<PretokenizerRule, 13> rules = {{
    {default_names, default_patterns, false, false},
    {gpt2_names, gpt2_patterns, false, false},
    {digit_names, digit_patterns, false, false},
    {llama3_names, llama3_patterns, true, true},
    {dbrx_names, llama3_patterns, false, false},
    {glm4_names, llama3_patterns, true, false},
    {qwen2_names, qwen2_patterns, false, false},
    {qwen35_names, qwen35_patterns, false, false},
    {deepseek3_names, deepseek3_patterns, false, false},
    {deepseek_coder_names, deepseek_coder_patterns, false, false},
    {falcon_names, falcon_patterns, false, false},
    {tekken_names, tekken_patterns, true, true},
    {gpt4o_names, gpt4o_patterns, false, false},
}};

}  // namespace

std::span<const PretokenizerRule> pretokenizer_rules() { return rules; }

}  // namespace sluice::engine
