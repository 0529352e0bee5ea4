// Which version of the software this is. Not the versions of protocols: those are
// negotiated on each link.
#ifndef SP_VERSION_H
#define SP_VERSION_H

// "0.1.0", in a build from a clone "0.1.0+g<commit>". Static.
const char *sp_version(void);

#endif
