// Telling GGUF from what people mistake for it. Used by gguf_header.cc alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "sluice/status.h"

namespace sluice::storage {

// Ok if `head`, the first 64 bytes of the file or all of it, begins as GGUF; else what it seems to be.
Status check_magic(const std::string& path, std::span<const std::byte> head);

// Ok for versions 2 and 3, little endian.
Status check_version(const std::string& path, uint32_t version);

}  // namespace sluice::storage
