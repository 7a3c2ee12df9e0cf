// Header-only; a C target needs one file to compile.
#include "CLibFuzzer.h"
