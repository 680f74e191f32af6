"""The verb ``doctor``: is everything right with this hub, and what mends it where it is not?

Rules of this package: it looks and changes nothing, whether the hub runs or not, and goes on where
something is broken: a check that cannot look says so and stops no other one.
"""
