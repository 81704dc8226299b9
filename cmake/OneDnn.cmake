# Finds oneDNN for cpu/ (version 2.6 or newer), and says what it found. Without it prompts are multiplied by our own
# kernels. ThreadSanitizer knows nothing of the OpenMP that it brings, so builds with it do without.
#
# Sets SLUICE_ONEDNN_FOUND and, if true, SLUICE_ONEDNN_INCLUDE and SLUICE_ONEDNN_LIBRARY.

set(SLUICE_ONEDNN AUTO CACHE STRING "Products of prompts by oneDNN: AUTO where it is found, ON, OFF")
set_property(CACHE SLUICE_ONEDNN PROPERTY STRINGS AUTO ON OFF)

set(SLUICE_ONEDNN_FOUND FALSE)
if(SLUICE_ONEDNN STREQUAL "OFF")
  message(STATUS "oneDNN: not used, since SLUICE_ONEDNN is OFF")
elseif(SLUICE_ONEDNN STREQUAL "AUTO" AND SLUICE_SANITIZE MATCHES "thread")
  message(STATUS "oneDNN: not used, since ThreadSanitizer would take its OpenMP for a race")
else()
  find_path(SLUICE_ONEDNN_INCLUDE dnnl.hpp)
  find_library(SLUICE_ONEDNN_LIBRARY dnnl)
  set(version "")
  if(SLUICE_ONEDNN_INCLUDE AND SLUICE_ONEDNN_LIBRARY)
    set(header ${SLUICE_ONEDNN_INCLUDE}/oneapi/dnnl/dnnl_version.h)
    if(EXISTS ${header})
      file(STRINGS ${header} lines REGEX "define DNNL_VERSION_(MAJOR|MINOR|PATCH) ")
      string(REGEX REPLACE "[^0-9;]" "" version "${lines}")
      string(REPLACE ";" "." version "${version}")
    endif()
  endif()
  if(version VERSION_GREATER_EQUAL 2.6)
    set(SLUICE_ONEDNN_FOUND TRUE)
    message(STATUS "oneDNN: ${version}, ${SLUICE_ONEDNN_LIBRARY}")
  elseif(SLUICE_ONEDNN STREQUAL "AUTO")
    message(STATUS "oneDNN: not used, since version 2.6 or newer was not found; on Debian 12 or Ubuntu 24.04: "
      "sudo apt-get install libdnnl-dev")
  else()
    message(FATAL_ERROR "SLUICE_ONEDNN is ${SLUICE_ONEDNN}, but oneDNN 2.6 or newer was not found. On Debian 12 or "
      "Ubuntu 24.04: sudo apt-get install libdnnl-dev")
  endif()
endif()
