// The wire structs are header-only; a C target needs one file to compile.
#include "CWire.h"
