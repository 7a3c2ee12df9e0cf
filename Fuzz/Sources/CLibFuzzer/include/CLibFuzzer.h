// libFuzzer as a library: the compiler's runtime has it, but no header declares it.
#pragma once
#include <stddef.h>
#include <stdint.h>

/// Runs the fuzzer with a program's arguments; `test` gets one input after the other and returns 0.
int LLVMFuzzerRunDriver(int *argc, char ***argv, int (*test)(const uint8_t *bytes, size_t count));
