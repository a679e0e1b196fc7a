// Everything that a build holds.

#pragma once

#include "losses.h"
#include "noise.h"
#include "shared.h"
