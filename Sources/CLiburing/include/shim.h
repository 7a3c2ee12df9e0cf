// liburing, Debian's 2.3 or newer. The inline helpers come from the header; the rest from the library.
#pragma once
// Before liburing.h, which defines _GNU_SOURCE: glibc's types must be the same here as in Swift's own Glibc module.
#include <features.h>
#include <liburing.h>
