"""Whether a guest of one host can go on at another: what KVM of each takes by KVM_SET_ONE_REG (KVM API, 4.68).

``host`` is what a host says of itself, ``fields`` what KVM compares in an ID register, ``accept`` predicts one call,
``check`` judges every register between two hosts, ``plan`` finds the set that several hosts take.
"""
