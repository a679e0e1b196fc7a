// Compiled with -mavx2 -mfma.

#include "all.h"
