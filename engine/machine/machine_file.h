// The Machine as a JSON file that people can read, edit and carry to another computer. The format is in
// docs/formats.md.
#pragma once

#include <string>

#include "core/machine.h"
#include "sluice/status.h"

namespace sluice::engine {

// Errors name the file and the field.
Result<Machine> read_machine(const std::string& path);

// Replaces the file in one step; a reader never sees half of it.
Status write_machine(const Machine& machine, const std::string& path);

}  // namespace sluice::engine
