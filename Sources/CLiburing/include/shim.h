// liburing, Debian's 2.3 or newer. The inline helpers come from the header; the rest from the library.
#pragma once
#include <liburing.h>
