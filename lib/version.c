#include "lib/version.h"

const char *sp_version(void)
{
	return SP_VERSION_TEXT; // from the Makefile
}
