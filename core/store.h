// Store: unordered, asynchronous reads and writes of files, an Event for each.
//
// Implementations: storage/uring_store.h (io_uring on its own sleeping thread), storage/pread_store.h
// (a pool of threads), and the slow and faulty ones of the tests. All pass tests/storage/store_contract.
//
// Contract
// - submit() returns at once, unless more requests are in flight than the store has slots: then it
//   waits for one to end. Each request ends exactly once, and its Event signals exactly once: ok, or
//   io_error naming file and offset, or cancelled.
// - Buffers stay valid and untouched from submit() until the Event.
// - A request that ended ok has transferred every byte. A read past the end of the file is an error:
//   a file that shrank is never zeros.
// - Requests are not ordered among themselves: a read after a write waits for the write's Event.
// - The destructor cancels what is in flight and waits for it.
// Threads: all functions may be called from any thread.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "core/block.h"
#include "core/event.h"

namespace sluice {

struct IoRequest {
  enum class Op : uint8_t { read, write } op = Op::read;
  Extent extent;
  // Start of the slot, aligned to io_unit, slot_bytes(extent) long. For a read the payload appears at
  // slot + payload_offset(extent), with undefined bytes around it. For a write the payload is taken
  // from there; writes begin at a multiple of io_unit, and what lies between the payload's end and the
  // end of its io_unit is written too.
  std::byte* slot = nullptr;
};

// Counts since the store was made; bytes_* are payload, disk_bytes_read counts the whole units read.
struct StoreStats {
  uint64_t reads = 0, writes = 0, failed = 0;
  uint64_t bytes_read = 0, bytes_written = 0;
  uint64_t disk_bytes_read = 0;
  uint64_t bytes_read_buffered = 0;  // the part of bytes_read that went through the page cache
  uint64_t busy_ns = 0;              // time during which at least one request was in flight
  uint32_t in_flight = 0;
};

class Store {
 public:
  virtual ~Store() = default;

  // Opens a file for reading; not_found or io_error name the path.
  virtual Result<FileId> open(const std::string& path) = 0;

  // Makes a nameless file for reading and writing in `directory`, `bytes` long, gone with the process.
  virtual Result<FileId> create_spill(const std::string& directory, uint64_t bytes) = 0;

  virtual void close(FileId file) = 0;

  virtual uint64_t size(FileId file) const = 0;

  // One Event for each request, in `events[i]`; both spans have the same length. A request whose file
  // is not open or whose range wraps fails through its Event.
  virtual void submit(std::span<const IoRequest> requests, std::span<Event> events) = 0;

  // Asks for requests still in flight to end early; their Events say cancelled, or ok if it was too late.
  virtual void cancel(std::span<const Event> events) = 0;

  // Memory that most slots lie in from now on, instead of what was said before; empty: none. What was said before may
  // be given back once this returns: no slot in it may be in use, nor may one be given that is not in the new one.
  // Store::submit() by others goes on meanwhile.
  virtual void use_region(std::span<std::byte> region) = 0;

  virtual StoreStats stats() const = 0;

  // "io_uring, O_DIRECT", "pread, buffered": for people.
  virtual std::string describe() const = 0;
};

}  // namespace sluice
