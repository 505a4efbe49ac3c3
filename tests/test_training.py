"""Training: equal weights from equal recipes, resuming after a kill, options, distillation, files that do not fit."""
import re
import shutil
import signal
from dataclasses import replace
from functools import partial

import keras
import numpy as np
import pytest

from fer_nb.data import train_val_split
from fer_nb.fused import has_bfloat16
from fer_nb.models import MODELS, build_around, main_logits, residual_body
from fer_nb.training import (
    TrainConfig,
    _losses,
    _prepare,
    file_fingerprint,
    fit,
    input_fingerprints,
    learning_rate_schedule,
    load_checkpoint,
    load_soft_labels,
    load_teachers,
    make_soft_labels,
    mean_probabilities,
)

LONG = TrainConfig(network='tiny', epochs=3, crop=32, batch_size=64, mixup=0.2, seed=5)
FILES = ['checkpoint.npz', 'curves.png', 'history.csv', 'model.keras', 'recipe.json']


@pytest.fixture(scope='module', autouse=True)
def tiny():
    "A student of 2,000 weights, under the name that recipes give to networks."
    MODELS['tiny'] = partial(build_around, residual_body(4, 8))
    yield
    del MODELS['tiny']


@pytest.fixture(scope='module')
def rows(faces):
    "Rows to train on and to validate on."
    train, val = train_val_split(faces)
    return train[np.arange(200)], val[np.arange(32)]


def weights(network) -> bytes: return b''.join(w.tobytes() for w in network.get_weights())


def learn(recipe, rows, folder):
    "Train without a progress bar: (network, history)."
    return fit(recipe, *rows, folder, progress=False)


@pytest.fixture(scope='module')
def undisturbed(rows, tmp_path_factory):
    "A run from begin to end: its folder, network and history."
    folder = tmp_path_factory.mktemp('undisturbed')
    return folder, *learn(LONG, rows, folder)


def test_the_learning_rate_is_highest_after_the_warm_up():
    schedule = learning_rate_schedule(TrainConfig(), 1000)
    rates = [float(schedule(i)) for i in (0, 25, *range(40, 61), 500, 1000)]
    assert np.argmax(rates) == 12 and rates[12] == max(rates) > rates[1] > rates[0] and abs(rates[-1]) < 1e-6


def test_the_default_optimiser_learns(faces, tmp_path):
    recipe = TrainConfig(network='xs', epochs=8, crop=32, batch_size=16, rotation=8.0, noise=0.0, random_erasing=0.0)
    assert (recipe.optimizer, recipe.schedule) == ('sgd', 'cosine')
    _, history = learn(recipe, train_val_split(faces), tmp_path)
    assert history[-1]['loss'] < np.log(7) < history[0]['loss']  # what a guess costs


# The same recipe, the same weights

def test_the_same_recipe_gives_the_same_weights(undisturbed, rows, tmp_path):
    _, network, history = undisturbed
    again, second = learn(LONG, rows, tmp_path)
    assert np.isfinite(np.concatenate([w.ravel() for w in network.get_weights()])).all()
    assert weights(again) == weights(network)
    assert [h['loss'] for h in second] == [h['loss'] for h in history]


def test_another_seed_gives_other_weights(undisturbed, rows, tmp_path):
    _, network, history = undisturbed
    other, second = learn(replace(LONG, seed=6), rows, tmp_path)
    assert weights(other) != weights(network) and second[0]['loss'] != history[0]['loss']


# Going on after a kill

KILLED = """
import os, signal
from functools import partial

import numpy as np
from fer_nb import training
from fer_nb.data import FaceSet
from fer_nb.models import MODELS, build_around, residual_body
from fer_nb.training import TrainConfig

MODELS['tiny'] = partial(build_around, residual_body(4, 8))
whole = training.write_atomically
def dying(path, write):
    def half(part):
        write(part)
        os.truncate(part, part.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    whole(path, half if path.name == 'checkpoint.npz' and path.exists() else write)
training.write_atomically = dying

def rows(name):
    with np.load(name) as z: return FaceSet(z['images'], z['labels'], tuple(z['classes'].tolist()))
training.fit({recipe!r}, rows('train.npz'), rows('val.npz'), 'run', progress=False)
"""


@pytest.fixture(scope='module')
def killed(rows, run, tmp_path_factory):
    "The folder of a run that was killed in the midst of writing the checkpoint of its second epoch."
    folder = tmp_path_factory.mktemp('killed')
    for name, part in zip(('train', 'val'), rows):
        np.savez(folder / f'{name}.npz', images=part.images, labels=part.labels, classes=list(part.classes))
    done = run('python', '-c', KILLED.format(recipe=LONG), cwd=folder)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return folder / 'run'


def test_a_kill_leaves_the_last_good_checkpoint(killed):
    assert len(load_checkpoint(killed / 'checkpoint.npz')['history']) == 1
    assert not (killed / 'model.keras').exists()


def test_a_killed_run_ends_in_the_same_weights(killed, undisturbed, rows, tmp_path):
    _, network, history = undisturbed
    folder = shutil.copytree(killed, tmp_path / 'run')
    resumed, whole = learn(LONG, rows, folder)
    assert weights(resumed) == weights(network)
    assert [h['loss'] for h in whole] == [h['loss'] for h in history]
    assert sorted(p.name for p in folder.iterdir()) == FILES


def test_another_recipe_does_not_go_on(undisturbed, rows):
    with pytest.raises(ValueError, match='is from another recipe .*epochs = 3'):
        learn(replace(LONG, epochs=4), rows, undisturbed[0])


def test_a_damaged_checkpoint_is_named(undisturbed, rows, tmp_path):
    (tmp_path / 'checkpoint.npz').write_bytes((undisturbed[0] / 'checkpoint.npz').read_bytes()[:1000])
    with pytest.raises(ValueError, match='checkpoint.npz: not a readable checkpoint'): learn(LONG, rows, tmp_path)


def test_a_checkpoint_of_another_network_is_refused(undisturbed, rows):
    other = _prepare(replace(LONG, network='xs'), rows[0])
    with pytest.raises(ValueError, match='belongs to another network or optimiser'):
        load_checkpoint(undisturbed[0] / 'checkpoint.npz', other)


# Options

STUCK = TrainConfig(
    network='tiny', ferplus=False, crop=32, epochs=12, batch_size=64, optimizer='adam', learning_rate=1e-9,
    schedule='plateau', patience=5, class_weights=True, progressive_size=24, progressive_fraction=0.2,
)


def test_small_views_adam_plateau_and_early_stopping(rows, tmp_path):
    "With a learning rate near nothing the accuracy cannot improve: the rate is halved and the run ends early."
    _, history = learn(STUCK, rows, tmp_path)
    assert len(history) == 6 and (tmp_path / 'best.npz').exists()
    rates = [h['learning_rate'] for h in history]
    np.testing.assert_allclose(rates, [1e-9] * (len(rates) - 2) + [5e-10] * 2)
    assert len(learn(STUCK, rows, tmp_path)[1]) == len(history)  # the end is remembered


def test_class_weights_weigh_rows():
    out = dict(target=np.eye(2, dtype='float32'), expression=np.zeros((2, 2), 'float32'))
    loss = lambda *w: float(_losses(out, TrainConfig(ferplus=False, label_smoothing=0.), np.array(w, 'float32'))[0])
    np.testing.assert_allclose([loss(1, 1), loss(3, 0), loss(2, 4)], np.log(2) * np.array([1, 1.5, 3]), rtol=1e-6)


def test_class_weights_are_inverse_frequencies(rows, monkeypatch):
    seen = []
    monkeypatch.setattr('fer_nb.training.trainer', lambda net, recipe, w, live: seen.append(w) or 1 / 0)
    for recipe in (STUCK, replace(STUCK, class_weights=False)):
        with pytest.raises(ZeroDivisionError): _prepare(recipe, rows[0])
    counts = np.bincount(rows[0].labels)
    np.testing.assert_allclose(seen[0], len(rows[0]) / counts / 7, rtol=1e-6)
    np.testing.assert_array_equal(seen[1], np.ones(7))


# Distillation

@pytest.fixture(scope='module')
def teacher(undisturbed): return undisturbed[0] / 'model.keras'


@pytest.fixture(scope='module')
def lessons(teacher, rows, tmp_path_factory):
    "A file of soft labels by a teacher, counted twice, and what `make_soft_labels` returned."
    path = tmp_path_factory.mktemp('lessons') / 'lessons.npz'
    return path, make_soft_labels([teacher, teacher], rows[0], path, TrainConfig(crop=32), views=2, progress=False)


def pupil(who) -> TrainConfig:
    "A recipe that listens to teachers alone, through small views at first."
    return TrainConfig(
        network='tiny', epochs=4, crop=32, batch_size=50, teachers=str(who), distill_weight=1.0, distill_temperature=2.0,
        progressive_size=24, random_erasing=0.0, noise=0.0, optimizer='adam', learning_rate=0.02, seed=3,
    )


@pytest.fixture(scope='module')
def heard(lessons, teacher, rows, tmp_path_factory):
    "Two runs, one taught from a file and one live: folder and history."
    folders = {name: tmp_path_factory.mktemp(name) for name in ('file', 'live')}
    teachers = {'file': lessons[0], 'live': teacher}
    return {name: (folder, learn(pupil(teachers[name]), rows, folder)[1]) for name, folder in folders.items()}


def test_lessons_are_probabilities(lessons, rows):
    path, taught = lessons
    assert taught.shape == (200, 7)
    np.testing.assert_allclose(taught.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(load_soft_labels(path, rows[0]), taught, atol=1e-3)


@pytest.mark.parametrize('name', ['file', 'live'])
def test_a_student_learns_from_teachers_alone(heard, name):
    history = heard[name][1]
    assert 0 < history[-1]['loss'] < history[0]['loss']


def test_a_live_view_is_not_the_mean_of_views(heard):
    assert heard['file'][1][0]['loss'] != heard['live'][1][0]['loss']


def test_a_run_does_not_go_on_with_other_lessons(heard, lessons, teacher, rows):
    "Other lessons under the same name are refused; the same ones, written again, are welcome."
    path, folder = lessons[0], heard['file'][0]
    known, said = path.read_bytes(), file_fingerprint(path)
    try:
        make_soft_labels([teacher], rows[0], path, TrainConfig(crop=32), views=1, progress=False)
        with pytest.raises(ValueError, match='lessons.npz held something else'): learn(pupil(path), rows, folder)
        path.write_bytes(known)
        with np.load(path) as z: arrays = dict(z)
        np.savez_compressed(path, **arrays)
        assert path.read_bytes() != known and file_fingerprint(path) == said
        assert len(learn(pupil(path), rows, folder)[1]) == 4
    finally: path.write_bytes(known)


def test_files_that_are_gone_are_learnt_from_no_more(lessons):
    found = input_fingerprints(replace(pupil(lessons[0]), init_from='gone.keras'))
    assert found == {str(lessons[0]): file_fingerprint(lessons[0]), 'gone.keras': ''} and file_fingerprint(lessons[0])


def test_a_student_starts_from_saved_weights(undisturbed, teacher, rows):
    fresh, begun = (_prepare(replace(LONG, init_from=start), rows[0]).network for start in ('', str(teacher)))
    assert weights(begun) == weights(undisturbed[1]) != weights(fresh)
    z = main_logits(keras.saving.load_model(teacher), rows[1].images)
    np.testing.assert_array_equal(main_logits(begun, rows[1].images), z)


def test_a_live_teacher_computes_in_the_precision_of_the_recipe(teacher, rows):
    "In 16 bits it gives nearly the same probabilities."
    ask = lambda precision: mean_probabilities(load_teachers([teacher], 7, precision), rows[0].images[:64, ..., None])
    whole, half = (keras.ops.convert_to_numpy(ask(p)) for p in ('float32', 'mixed_bfloat16'))
    gap = np.abs(whole - half).max()
    assert (gap > 0) == has_bfloat16() and gap < 0.05
    assert (whole.argmax(1) == half.argmax(1)).mean() > 0.9


# Files that are something else

def test_lessons_about_other_faces_are_named(lessons, rows):
    with pytest.raises(ValueError, match='lessons.npz: holds predictions for other faces'):
        load_soft_labels(lessons[0], rows[0][np.arange(100)])


def test_a_file_that_holds_no_lessons_is_named(undisturbed, rows):
    with pytest.raises(ValueError, match='not a readable file of predictions'):
        load_soft_labels(undisturbed[0] / 'checkpoint.npz', rows[0])


def test_a_teacher_that_is_no_network_is_named(lessons, rows, tmp_path):
    with pytest.raises(ValueError, match='lessons.npz: not a saved network'):
        make_soft_labels([lessons[0]], rows[0], tmp_path / 'x.npz')


def test_a_teacher_of_other_classes_is_named(teacher):
    with pytest.raises(ValueError, match=re.escape(f'{teacher}: knows 7 classes, the data has 5')):
        load_teachers([teacher], 5)


def test_weights_of_another_network_do_not_start(teacher, rows, tmp_path):
    recipe = replace(LONG, network='xs', init_from=str(teacher))
    with pytest.raises(ValueError, match='model.keras: cannot start xs'): learn(recipe, rows, tmp_path)
