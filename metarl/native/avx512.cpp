// Compiled with -mavx512f -mfma.

#include "recurrent.h"
