"""The MUSTs of the contracts as a program, for any implementation: `python -m aiida_byoc.contracts.conformance`.

It plays the other side, from outside, over the wire, with the standard library alone. Read in this order: `musts`
(what a finding is), `wire` and `played` (how it asks and answers), then a role: `adapter`, `receiver`, `node`.
`docs/conformance.md` says how to use it.
"""
