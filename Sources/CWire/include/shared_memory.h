// Reads and writes of memory that a guest changes at any moment. Swift has no volatile: these make sure that each value
// is read exactly once and whole, whatever its alignment, so that a check and the use after it see the same value.
// Ordering is not theirs: indices are published and observed through atomics.
#pragma once
#include <stdint.h>
#include <string.h>

struct wire_unaligned16 { uint16_t value; } __attribute__((packed, may_alias));
struct wire_unaligned32 { uint32_t value; } __attribute__((packed, may_alias));
struct wire_unaligned64 { uint64_t value; } __attribute__((packed, may_alias));

static inline uint8_t wire_load8(const void *from) { return *(const volatile uint8_t *)from; }
static inline uint16_t wire_load16(const void *from) { return ((const volatile struct wire_unaligned16 *)from)->value; }
static inline uint32_t wire_load32(const void *from) { return ((const volatile struct wire_unaligned32 *)from)->value; }
static inline uint64_t wire_load64(const void *from) { return ((const volatile struct wire_unaligned64 *)from)->value; }
static inline void wire_store8(void *to, uint8_t value) { *(volatile uint8_t *)to = value; }
static inline void wire_store16(void *to, uint16_t value) { ((volatile struct wire_unaligned16 *)to)->value = value; }
static inline void wire_store32(void *to, uint32_t value) { ((volatile struct wire_unaligned32 *)to)->value = value; }
static inline void wire_store64(void *to, uint64_t value) { ((volatile struct wire_unaligned64 *)to)->value = value; }

/// A hint that `from` will be read soon.
static inline void wire_prefetch(const void *from) { __builtin_prefetch(from); }
