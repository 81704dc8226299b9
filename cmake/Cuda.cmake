# Finds a CUDA toolkit for gpu/, and says what it found.
#
# It looks at CUDAToolkit_ROOT alone if that is set, else at the nvcc in PATH, in /usr/local/cuda and /opt/cuda, and among PyPI's wheels
# (pip install nvidia-cuda-nvcc nvidia-cuda-runtime nvidia-cuda-crt nvidia-nvvm nvidia-cuda-cccl) of python3.
# nvcc is called by custom commands, not as a language of the project: without a toolkit nothing asks for it.
#
# Sets SLUICE_CUDA_FOUND and, if true, SLUICE_NVCC, SLUICE_CUDA_INCLUDE and SLUICE_CUDA_LIBRARIES; and SLUICE_NVTX_FOUND
# where the toolkit has NVTX (among the wheels a package of its own, nvidia-nvtx).

set(SLUICE_CUDA AUTO CACHE STRING "Build the GPU device: AUTO where a CUDA toolkit is found, ON, OFF")
set_property(CACHE SLUICE_CUDA PROPERTY STRINGS AUTO ON OFF)
set(SLUICE_CUDA_ARCHITECTURES "80-real;90" CACHE STRING
  "GPUs to compile for: 90 is machine code and PTX, 90-real machine code, 90-virtual PTX for later GPUs")

# Sets `out` to the folders in which a toolkit may lie.
function(sluice_cuda_candidates out)
  set(named ${CUDAToolkit_ROOT} $ENV{CUDAToolkit_ROOT})
  if(named)
    set(${out} ${named} PARENT_SCOPE)  # and nowhere else
    return()
  endif()
  set(candidates "")
  find_program(SLUICE_NVCC_IN_PATH nvcc NO_CACHE)
  if(SLUICE_NVCC_IN_PATH)
    file(REAL_PATH ${SLUICE_NVCC_IN_PATH} nvcc)
    cmake_path(GET nvcc PARENT_PATH bin)
    cmake_path(GET bin PARENT_PATH root)
    list(APPEND candidates ${root})
  endif()
  list(APPEND candidates /usr/local/cuda /opt/cuda)
  find_program(SLUICE_PYTHON python3 NO_CACHE)
  if(SLUICE_PYTHON)
    execute_process(COMMAND ${SLUICE_PYTHON} -c
      "import glob, sys; print(';'.join(d for p in sys.path if p for d in sorted(glob.glob(p + '/nvidia/cu[0-9]*'))[::-1]))"
      OUTPUT_VARIABLE wheels OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    list(APPEND candidates ${wheels})
  endif()
  set(${out} ${candidates} PARENT_SCOPE)
endfunction()

# Takes the toolkit at `root` if it has all that is needed; else `trouble` says what is missing there.
function(sluice_cuda_try root trouble)
  if(NOT EXISTS ${root}/bin/nvcc)
    set(${trouble} "" PARENT_SCOPE)
    if(EXISTS ${root} OR "${root}" STREQUAL "${CUDAToolkit_ROOT}")
      set(${trouble} "${root}: no bin/nvcc" PARENT_SCOPE)
    endif()
    return()
  endif()
  foreach(file include/cuda_runtime.h include/cuda.h)
    if(NOT EXISTS ${root}/${file})
      set(${trouble} "${root}: no ${file}" PARENT_SCOPE)
      return()
    endif()
  endforeach()
  find_library(cudart cudart_static PATHS ${root}/lib64 ${root}/lib ${root}/targets/x86_64-linux/lib NO_DEFAULT_PATH NO_CACHE)
  if(NOT cudart)
    set(${trouble} "${root}: no libcudart_static.a" PARENT_SCOPE)
    return()
  endif()
  execute_process(COMMAND ${root}/bin/nvcc --version OUTPUT_VARIABLE version ERROR_QUIET RESULT_VARIABLE result)
  string(REGEX MATCH "release ([0-9]+)\\.([0-9]+)" release "${version}")
  if(NOT result EQUAL 0 OR CMAKE_MATCH_1 LESS 12)
    set(${trouble} "${root}: nvcc 12 or newer is needed" PARENT_SCOPE)
    return()
  endif()
  set(SLUICE_CUDA_FOUND TRUE PARENT_SCOPE)
  set(SLUICE_CUDA_VERSION ${CMAKE_MATCH_1}.${CMAKE_MATCH_2} PARENT_SCOPE)
  set(SLUICE_NVCC ${root}/bin/nvcc PARENT_SCOPE)
  set(SLUICE_CUDA_INCLUDE ${root}/include PARENT_SCOPE)
  set(SLUICE_CUDA_LIBRARIES ${cudart} Threads::Threads ${CMAKE_DL_LIBS} rt PARENT_SCOPE)
endfunction()

set(SLUICE_CUDA_FOUND FALSE)
set(SLUICE_NVTX_FOUND FALSE)
if(SLUICE_CUDA STREQUAL "OFF")
  message(STATUS "GPU: not built, since SLUICE_CUDA is OFF")
else()
  sluice_cuda_candidates(candidates)
  set(troubles "")
  foreach(root ${candidates})
    sluice_cuda_try(${root} trouble)
    if(SLUICE_CUDA_FOUND)
      break()
    endif()
    list(APPEND troubles ${trouble})
  endforeach()
  if(troubles)
    list(JOIN troubles "; " why)
    set(why " (${why})")
  endif()
  if(SLUICE_CUDA_FOUND)
    list(JOIN SLUICE_CUDA_ARCHITECTURES ", " for)
    set(ranges ", without NVTX")
    if(EXISTS ${SLUICE_CUDA_INCLUDE}/nvtx3/nvToolsExt.h)
      set(SLUICE_NVTX_FOUND TRUE)
      set(ranges "")
    endif()
    message(STATUS "GPU: built with CUDA ${SLUICE_CUDA_VERSION}, ${SLUICE_NVCC}, for ${for}${ranges}")
  elseif(SLUICE_CUDA STREQUAL "AUTO")
    message(STATUS "GPU: not built, since no CUDA toolkit was found${why}; see cmake/Cuda.cmake for where it is looked for")
  else()
    message(FATAL_ERROR "SLUICE_CUDA is ${SLUICE_CUDA}, but no CUDA toolkit was found${why}. Name one with "
      "-DCUDAToolkit_ROOT=…, or: pip install nvidia-cuda-nvcc nvidia-cuda-runtime nvidia-cuda-crt nvidia-nvvm nvidia-cuda-cccl")
  endif()
endif()

# What nvcc is called with. Products are fused only where the sources say fmaf; warnings of the host's
# compiler are those of Flags.cmake, less -Wpedantic, which nvcc's own output does not pass.
function(sluice_nvcc_flags out)
  set(flags -std=c++20 -O3 -fmad=false -Xptxas=-v -I${PROJECT_SOURCE_DIR} -I${PROJECT_SOURCE_DIR}/include -ccbin ${CMAKE_CXX_COMPILER}
      -Xcompiler=-fPIC,-Wall,-Wextra,-ffp-contract=off)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    list(APPEND flags -Xcompiler=-Wno-restrict)  # as in Flags.cmake
  endif()
  if(CMAKE_BUILD_TYPE STREQUAL "RelWithDebInfo")
    list(APPEND flags -lineinfo -Xcompiler=-g)
  endif()
  if(SLUICE_WERROR)
    list(APPEND flags -Werror=all-warnings -Xcompiler=-Werror)
  endif()
  foreach(architecture ${SLUICE_CUDA_ARCHITECTURES})
    string(REGEX REPLACE "-.*" "" number ${architecture})
    if(architecture MATCHES "-real$")
      list(APPEND flags -gencode=arch=compute_${number},code=sm_${number})
    elseif(architecture MATCHES "-virtual$")
      list(APPEND flags -gencode=arch=compute_${number},code=compute_${number})
    else()
      list(APPEND flags "-gencode=arch=compute_${number},code=[sm_${number},compute_${number}]")
    endif()
  endforeach()
  set(${out} ${flags} PARENT_SCOPE)
endfunction()

# Compiles .cu files; `out` gets the object files. Beside each lies what its kernels take (Nvcc.cmake).
function(sluice_cuda_objects out)
  sluice_nvcc_flags(flags)
  set(objects "")
  foreach(source ${ARGN})
    cmake_path(GET source STEM name)
    set(object ${CMAKE_CURRENT_BINARY_DIR}/${name}.cu.o)
    add_custom_command(OUTPUT ${object} VERBATIM DEPENDS ${source} DEPFILE ${object}.d
      COMMENT "Compiling CUDA kernels ${name}.cu"
      BYPRODUCTS ${object}.resources
      COMMAND ${CMAKE_COMMAND} -DREPORT=${object}.resources -P ${PROJECT_SOURCE_DIR}/cmake/Nvcc.cmake --
        ${SLUICE_CCACHE} ${SLUICE_NVCC} ${flags} -MD -MF ${object}.d -c ${source} -o ${object})
    list(APPEND objects ${object})
  endforeach()
  set(${out} ${objects} PARENT_SCOPE)
endfunction()
