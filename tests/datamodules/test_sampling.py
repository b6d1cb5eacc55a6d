import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attention_zoo.errors import InputError
from datamodules.sampling import EvaluationSampler, GroupedSampler, SampleKey, TrainSampler

sizes = st.tuples(st.integers(1, 60), st.integers(1, 7)).map(lambda size: (max(size), min(size)))


def of_all_ranks(sampler, size, world, epoch=0, **kwargs):
    samplers = [sampler(range(size), world, rank, **kwargs) for rank in range(world)]
    for one in samplers:
        one.set_epoch(epoch)
        assert len(list(one)) == len(one)
    return [list(one) for one in samplers]


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 60), st.integers(1, 7))
def test_evaluation_counts_each_sample_once_in_batches_of_equal_number(size, world):
    ranks = of_all_ranks(EvaluationSampler, size, world)
    assert {len(keys) for keys in ranks} == {-(-size // world)}
    assert sorted(key.index for keys in ranks for key in keys if key.counted) == list(range(size))
    assert all(0 <= key.index < size for keys in ranks for key in keys)
    for rank, keys in enumerate(ranks):
        assert [key.index for key in keys if key.counted] == list(range(rank, size, world))


@settings(deadline=None, max_examples=60)
@given(sizes, st.integers(0, 5), st.integers(0, 2**31))
def test_training_shares_one_permutation_evenly(size, epoch, seed):
    size, world = size
    ranks = of_all_ranks(TrainSampler, size, world, epoch, seed=seed)
    assert {len(keys) for keys in ranks} == {size // world}
    indices = [key.index for keys in ranks for key in keys]
    assert len(set(indices)) == len(indices) == size // world * world
    assert set(indices) <= set(range(size))
    assert {(key.epoch, key.counted) for keys in ranks for key in keys} == {(epoch, True)}
    assert ranks == of_all_ranks(TrainSampler, size, world, epoch, seed=seed)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 7))
def test_the_number_of_processes_does_not_change_the_order(world):
    ranks = of_all_ranks(TrainSampler, 42, world, epoch=3, seed=5)
    interleaved = [key for step in zip(*ranks, strict=True) for key in step]
    assert interleaved == of_all_ranks(TrainSampler, 42, 1, epoch=3, seed=5)[0][: len(interleaved)]


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = {
        tuple(key.index for key in of_all_ranks(TrainSampler, 50, 1, epoch, seed=seed)[0])
        for epoch in range(4)
        for seed in range(4)
    }
    assert len(orders) == 16


def test_one_process_without_torch_distributed():
    assert list(EvaluationSampler(range(2))) == [SampleKey(0, 0, True), SampleKey(0, 1, True)]
    assert sorted(key.index for key in TrainSampler(range(9))) == list(range(9))


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 50))
def test_an_evaluation_that_goes_on_leaves_out_what_each_process_has_behind_it(size, world, first):
    for rank in range(world):
        whole = list(EvaluationSampler(range(size), world, rank))
        rest = EvaluationSampler(range(size), world, rank, first=first)
        assert list(rest) == whole[first:]
        assert len(rest) == len(whole[first:])


def test_too_few_samples_for_the_processes():
    with pytest.raises(InputError, match="2 training images cannot be shared by 3 processes"):
        TrainSampler(range(2), 3, 0)


def test_a_resumed_run_starts_with_its_own_epoch():
    fresh, resumed = TrainSampler(range(20), 1, 0), TrainSampler(range(20), 1, 0, first_epoch=3)
    resumed.set_epoch(0)  # what Lightning says before it has restored the epoch
    fresh.set_epoch(3)
    assert list(resumed) == list(fresh)
    resumed.set_epoch(4)
    fresh.set_epoch(4)
    assert list(resumed) == list(fresh)
    assert next(iter(resumed)).epoch == 4


@pytest.mark.parametrize("world", [1, 2])
def test_repeated_augmentation_keeps_the_length_and_repeats_samples(world):
    ranks = of_all_ranks(TrainSampler, 30, world, 4, seed=5, repeats=3)
    assert [len(keys) for keys in ranks] == [30 // world] * world
    keys = [key for step in zip(*ranks, strict=True) for key in step]
    plain = of_all_ranks(TrainSampler, 30, 1, 4, seed=5)[0]
    assert [key.index for key in keys] == [key.index for key in plain[:10] for _ in range(3)]
    assert [key.repeat for key in keys] == [0, 1, 2] * 10


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(1, 5), st.integers(1, 4))
def test_groups_count_each_sample_once_in_batches_of_its_own_kind(groups, batch_size, world):
    ranks = [list(GroupedSampler(groups, batch_size, world, rank)) for rank in range(world)]
    assert len({len(batches) for batches in ranks}) == 1
    batches = [batch for batches in ranks for batch in batches]
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    assert all(len({groups[key.index] for key in batch}) == 1 for batch in batches)
    assert sorted(key.index for batch in batches for key in batch if key.counted) == list(range(len(groups)))
    full = [batch for batch in batches if len(batch) == batch_size]
    assert len(full) >= sum(groups.count(group) // batch_size for group in set(groups))
