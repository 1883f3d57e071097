"""The batches of each step, beside a loop over epochs and batches."""

import numpy as np
import pytest

from fsd_tune.data.batching import epoch_order
from fsd_tune.errors import FsdTuneError
from fsd_tune.training.batch_schedule import BatchSchedule


def schedule(published, accumulation, examples=40, batch_size=6, epochs=3):
    return BatchSchedule(examples, batch_size, epochs, accumulation, seed=3, published=published)


def steps_of_a_loop(published, accumulation):
    """The batches of each step as a training loop takes them; the published one counts steps within an epoch."""
    steps, gradients, batch = [], [], 0
    for _ in range(3):
        for number in range(7):
            gradients.append(batch)
            batch += 1
            if ((number + 1) if published else batch) % accumulation == 0:
                steps.append(gradients)
                gradients = []
    if gradients and not published:
        steps.append(gradients)
    return steps


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("accumulation", [1, 2, 3, 5, 7])
def test_the_batches_of_each_step_are_those_of_a_loop(published, accumulation):
    batches = schedule(published, accumulation)
    steps = [list(batches.batches_of(step)) for step in range(batches.steps_total)]
    assert steps == steps_of_a_loop(published, accumulation)
    assert batches.epochs_after(0) == 0
    assert batches.epochs_after(batches.steps_total) == (steps[-1][-1] + 1) / 7


def test_rows_are_those_of_the_epochs_order():
    batches = schedule(published=False, accumulation=1)
    for epoch in range(3):
        for number, rows in enumerate(epoch_order(40, 3, 6, epoch)):
            assert np.array_equal(batches.rows(7 * epoch + number), rows)


@pytest.mark.parametrize("published", [False, True])
def test_rows_do_not_depend_on_what_was_asked_before(published):
    lengths = np.arange(40) % 9
    batches = BatchSchedule(40, 6, 3, 2, seed=3, published=published, lengths=lengths)
    in_order = [batches.rows(batch) for batch in range(21)]
    for batch in np.random.default_rng(0).permutation(21):
        assert np.array_equal(batches.rows(batch), in_order[batch])
    assert np.array_equal(in_order[8], epoch_order(40, 3, 6, 1, lengths)[1])


def test_more_accumulation_than_an_epoch_has_batches():
    assert schedule(published=False, accumulation=64).epochs_after(1) == 3
    with pytest.raises(FsdTuneError, match=r"gradient_accumulation is 64, but .* must be at most 7"):
        schedule(published=True, accumulation=64)
