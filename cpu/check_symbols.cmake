# Fails where an object compiled for an ISA defines a symbol outside namespace sluice::cpu::<isa>: another
# object could define the same one, and the linker would keep either. Takes NM, ISA and OBJECTS (a list).
string(LENGTH ${ISA} length)
foreach(object IN LISTS OBJECTS)
  execute_process(COMMAND ${NM} --defined-only --extern-only --format=posix ${object}
                  OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
  string(REPLACE "\n" ";" symbols "${symbols}")
  foreach(symbol IN LISTS symbols)
    string(REGEX REPLACE " .*" "" symbol "${symbol}")
    if(symbol AND NOT symbol MATCHES "^_Z(TS|TI|TV|GV|Z|L|N)*K?6sluice3cpu${length}${ISA}")
      message(FATAL_ERROR "${object} defines ${symbol}, which the linker may share with code for any machine")
    endif()
  endforeach()
endforeach()
