import math

from fsd_tune.search.leader import BestStopped


def test_the_best_stopped_trial_alone_keeps_its_checkpoint():
    stopped = BestStopped()
    assert stopped.admits(0, 0.5) and stopped.add(0) == []
    assert not stopped.admits(1, 0.5) and stopped.add(1) == [1], "of equals the earlier one is kept"
    assert not stopped.admits(2, math.nan)
    assert stopped.admits(3, 0.6) and stopped.admits(4, 0.7), "both before either of them has ended"
    assert stopped.add(3) == [3] and stopped.add(4) == [0]
