import pytest
import torch

from dms_bench.errors import TrialFailure
from dms_bench.trial.checkpoint import Checkpoints


def _saved(folder, epochs):
    checkpoints = Checkpoints(folder)
    for epoch in range(1, epochs + 1):
        checkpoints.save(epoch, {"epoch": epoch, "weights": torch.full((3,), float(epoch))})
    return checkpoints


def _damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def test_the_newest_two_are_kept_and_the_newest_is_loaded(tmp_path):
    checkpoints = _saved(tmp_path, 5)
    assert [path.name[11:16] for path in checkpoints.files()] == ["00005", "00004"]
    state = checkpoints.load()
    assert state["epoch"] == 5
    assert torch.equal(state["weights"], torch.full((3,), 5.0))


def test_nothing_is_loaded_where_nothing_was_saved(tmp_path):
    assert Checkpoints(tmp_path / "missing").load() is None


@pytest.mark.parametrize("damage", [_damage, lambda path: path.write_bytes(path.read_bytes()[:50])])
def test_a_damaged_newest_one_falls_back_to_the_one_before(tmp_path, damage):
    checkpoints = _saved(tmp_path, 3)
    damage(checkpoints.files()[0])
    assert checkpoints.load()["epoch"] == 2


def test_training_on_after_a_fall_back_leaves_undamaged_files(tmp_path):
    checkpoints = _saved(tmp_path, 3)
    _damage(checkpoints.files()[0])
    checkpoints.save(3, {"epoch": 3})
    newest, before = checkpoints.files()
    assert checkpoints.load() == {"epoch": 3}
    _damage(newest)
    assert checkpoints.load()["epoch"] == 2
    assert "00002" in before.name


def test_two_damaged_ones_are_a_failure_that_names_them(tmp_path):
    checkpoints = _saved(tmp_path, 3)
    for path in checkpoints.files():
        _damage(path)
    with pytest.raises(TrialFailure, match=r"damaged checkpoint: .*checkpoint-00003.* and .*checkpoint-00002") as error:
        checkpoints.load()
    assert "\n" not in str(error.value)


def test_a_state_that_could_not_be_loaded_is_not_saved(tmp_path):
    with pytest.raises(TypeError, match="PosixPath"):
        Checkpoints(tmp_path).save(1, {"where": tmp_path})
    assert Checkpoints(tmp_path).files() == []


def test_an_unfinished_file_is_no_checkpoint(tmp_path):
    checkpoints = _saved(tmp_path, 1)
    (tmp_path / f".{checkpoints.files()[0].name}.123").write_bytes(b"half")
    assert len(checkpoints.files()) == 1
    assert checkpoints.load()["epoch"] == 1
