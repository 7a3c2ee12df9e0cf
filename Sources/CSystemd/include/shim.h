// libsystemd, Debian's 252 or newer: how a service and its manager talk (sd-daemon(3)).
#pragma once
#include <systemd/sd-daemon.h>
