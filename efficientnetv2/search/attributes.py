"""Names the user attributes that a trial has in the Optuna study."""

OWNER = "owner"  # id of the run directory that began it
HOST = "host"  # name of the machine that began it
ALIVE = "alive"  # time of its last heartbeat, seconds since 1970
SURPLUS = "surplus"  # begun when there were already enough trials; not counted
ERROR = "error"  # why it failed, one line
DEVICE = "device"  # what it was timed on
RESULT = "found"  # the fields of ``messages.TrialResult``
RELATIVE_TIME = "relative_time"  # step time as a multiple of the backbone's
REWARD = "reward"  # also set for a trial that was pruned
SAME_AS = "same_as"  # number of an earlier trial of the same network, whose result it copies
