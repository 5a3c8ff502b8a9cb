"""JSON in the shape that OpenBMC's libcper writes and reads (its ``specification/json``), for programs that use that.

The shape, the names of members and those of values are libcper's; what they say is what this project reads.  Where
libcper says something else, ``docs/libcper.md`` has it, with the clause.
"""
