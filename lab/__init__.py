"""The lab: the whole stack, of real parts, in one private directory of one machine."""
