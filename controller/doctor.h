// The role that tells an operator's doctor where the controller, its disk and Redis
// stand. Not here: what is good or bad of it.
#ifndef CON_DOCTOR_H
#define CON_DOCTOR_H

#include "controller/controller.h"

extern const struct con_role con_role_doctor;

#endif
