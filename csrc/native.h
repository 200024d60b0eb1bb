/* The header of the C sources: the declarations Python sees, with the types they need. */
#ifndef PVEDRBDSTOR_NATIVE_H
#define PVEDRBDSTOR_NATIVE_H

#include <stddef.h>
#include <stdint.h>

#include "declarations.h"

#endif
