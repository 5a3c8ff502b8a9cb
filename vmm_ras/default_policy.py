"""The policy that applies where none is given: TOML, and the reasons in it (`vmm-ras policy show`)."""

TEXT = '''\
# The policy that applies where none is given.  The first rule whose `when` holds decides.
version = 1

[[rule]]
name = "consumed-in-kernel"
doc = """
A Linux guest never looks for a record when the SEA comes from EL1: the record would stay unread, and the next SEA would
find a stale one.  So the SEA goes without a record, and the page is told as a found one.  (The guests that are not
called linux are Linux too, but for one thing.)
"""
when = { code = "AR", el = 1, guest = ["linux", "generic-sei", "no-ras", "no-apei"] }
action = "bare"

[[rule]]
name = "consumed"
doc = """
The vCPU used lost memory.  It gets a synchronous external abort at the very instruction, and finds the page in the
record.  Where the guest has no SEA source, an asynchronous way tells it the page and the access is repeated.
"""
when = { code = "AR" }
deliver = ["sea", "sdei", "gsiv", "gpio", "polled", "sei"]

[[rule]]
name = "found"
doc = """
Memory is lost and nobody used it yet.  The guest can stop using it: told by the first way that it accepts.  SDEI comes
first, because it reaches the guest at once, masked or not.  SEI comes last: a masked SError stays pending, and many
kernels panic on one.
"""
when = { code = "AO" }
deliver = ["sdei", "gsiv", "gpio", "polled", "sei"]
'''
