/* Both element types for one instruction set: LEVEL names it, VBYTES is its vector width. */
#define LEVEL_PASTE(type, level) type##_##level
#define LEVEL_EXPAND(type, level) LEVEL_PASTE(type, level)

#define REAL float
#define INT int32_t
#define REAL_BITS 32
#define SIGN_BIT INT32_MIN
#define SUFFIX LEVEL_EXPAND(f32, LEVEL)
#include "element_type.h"

#define REAL double
#define INT int64_t
#define REAL_BITS 64
#define SIGN_BIT INT64_MIN
#define SUFFIX LEVEL_EXPAND(f64, LEVEL)
#include "element_type.h"

#undef LEVEL
#undef LEVEL_PASTE
#undef LEVEL_EXPAND
#undef VBYTES
