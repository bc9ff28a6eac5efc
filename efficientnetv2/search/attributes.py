"""The attributes of a trial in its Optuna study; out: their names."""

OWNER = "owner"  # the run directory that it was begun in
HOST = "host"
ALIVE = "alive"  # seconds since 1970 of its last sign of life
SURPLUS = "surplus"  # begun when there were enough; it does not count
ERROR = "error"  # one line
DEVICE = "device"  # where it was timed
FOUND = "found"  # the fields of ``trial.Found``
RELATIVE_TIME = "relative_time"  # step time as a multiple of the backbone's
REWARD = "reward"  # also of a trial that was ended early
SAME_AS = "same_as"  # number of an earlier trial of the same network, whose values it has
