// Compiled with -mavx512f -mfma.

#include "all.h"
