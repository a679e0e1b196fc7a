// Compiled with -mavx2 -mfma.

#include "recurrent.h"
