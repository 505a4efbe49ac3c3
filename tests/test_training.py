"""Training: equal configurations, equal weights; resuming after a kill, options, distillation, unfit files."""
import json
import re
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from waiting import until

from fer_nb.checkpoints import file_fingerprint, input_fingerprints, load_checkpoint, save_checkpoint
from fer_nb.core import FerError
from fer_nb.data import FaceSet, train_val_split
from fer_nb.distillation import load_soft_labels, load_teachers, make_soft_labels, mean_probabilities
from fer_nb.models import MODELS, build_around, main_logits, residual_body
from fer_nb.optimizers import learning_rate_schedule
from fer_nb.run_folders import open_run
from fer_nb.time_budget import TimeBudget
from fer_nb.train_config import TrainConfig
from fer_nb.train_step import losses
from fer_nb.training import _prepare, fit, training_data
from fer_nb.training import train as train_network

LONG = TrainConfig(network='tiny', epochs=3, crop=32, batch_size=64, mixup=0.2, seed=5)
FILES = ['.lock', 'checkpoint.npz', 'config.json', 'curves.png', 'history.csv', 'model.keras']


@pytest.fixture(scope='module', autouse=True)
def tiny():
    "A network of 2,000 weights, under a name of its own."
    MODELS['tiny'] = partial(build_around, residual_body(4, 8))
    yield
    del MODELS['tiny']


@pytest.fixture(scope='module')
def samples(faces):
    "Rows to train on and to validate on."
    train, val = train_val_split(faces)
    return train[np.arange(200)], val[np.arange(32)]


def weights(network) -> bytes: return b''.join(w.tobytes() for w in network.get_weights())


def learn(config, samples, folder):
    "Train without a progress bar: (network, history)."
    return fit(config, *samples, folder, progress=False)


@pytest.fixture(scope='module')
def undisturbed(samples, tmp_path_factory):
    "A run without interruption: its folder, network and history."
    folder = tmp_path_factory.mktemp('undisturbed')
    return folder, *learn(LONG, samples, folder)


def test_the_learning_rate_is_highest_after_the_warm_up():
    schedule = learning_rate_schedule(TrainConfig(), 1000)
    rates = [float(schedule(i)) for i in (0, 25, *range(40, 61), 500, 1000)]
    assert np.argmax(rates) == 12 and rates[12] == max(rates) > rates[1] > rates[0] and abs(rates[-1]) < 1e-6


def test_the_default_optimizer_learns(faces, tmp_path):
    config = TrainConfig(network='xs', epochs=8, crop=32, batch_size=16, rotation=8.0, noise=0.0, random_erasing=0.0)
    assert (config.optimizer, config.schedule) == ('sgd', 'cosine')
    _, history = learn(config, train_val_split(faces), tmp_path)
    assert history[-1]['loss'] < np.log(7) < history[0]['loss']  # what a guess costs


def test_training_in_half_precision_learns(samples, tmp_path):
    "Trained in bfloat16 by Muon, as the shipped models; the network that comes back computes in 32 bits."
    config = replace(LONG, precision='mixed_bfloat16', optimizer='muon', learning_rate=0.02, rotation=0.0, noise=0.0)
    network, history = learn(config, samples, tmp_path)
    loss = [h['loss'] for h in history]
    assert np.isfinite(loss).all() and loss[-1] < loss[0]
    assert {layer.compute_dtype for layer in network.layers} == {'float32'}
    assert keras.config.dtype_policy().name == 'float32'


# The same configuration, the same weights

def test_the_same_configuration_gives_the_same_weights(undisturbed, samples, tmp_path):
    _, network, history = undisturbed
    again, second = learn(LONG, samples, tmp_path)
    assert np.isfinite(np.concatenate([w.ravel() for w in network.get_weights()])).all()
    assert weights(again) == weights(network)
    assert [h['loss'] for h in second] == [h['loss'] for h in history]


def test_another_seed_gives_other_weights(undisturbed, samples, tmp_path):
    _, network, history = undisturbed
    other, second = learn(replace(LONG, seed=6), samples, tmp_path)
    assert weights(other) != weights(network) and second[0]['loss'] != history[0]['loss']


# Going on after a kill

KILLED = """
import os, signal
from functools import partial
import numpy as np
from fer_nb import checkpoints, training
from fer_nb.data import FaceSet
from fer_nb.models import MODELS, build_around, residual_body
from fer_nb.train_config import TrainConfig

MODELS['tiny'] = partial(build_around, residual_body(4, 8))
whole = checkpoints.write_atomically
def dying(path, write):
    def half(part):
        write(part)
        os.truncate(part, part.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    whole(path, half if path.name == 'checkpoint.npz' and path.exists() else write)
checkpoints.write_atomically = dying

def samples(name):
    with np.load(name) as z: return FaceSet(z['images'], z['labels'], tuple(z['classes'].tolist()))
training.fit({config!r}, samples('train.npz'), samples('val.npz'), 'run', progress=False)
"""


@pytest.fixture(scope='module')
def killed(samples, run, tmp_path_factory):
    "The folder of a run that was killed in the middle of writing the checkpoint of its second epoch."
    folder = tmp_path_factory.mktemp('killed')
    for name, part in zip(('train', 'val'), samples):
        np.savez(folder / f'{name}.npz', images=part.images, labels=part.labels, classes=list(part.classes))
    done = run('python', '-c', KILLED.format(config=LONG), cwd=folder)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return folder / 'run'


def test_a_kill_leaves_the_last_good_checkpoint(killed):
    assert len(load_checkpoint(killed / 'checkpoint.npz')['history']) == 1
    assert not (killed / 'model.keras').exists()


def test_a_killed_run_ends_in_the_same_weights(killed, undisturbed, samples, tmp_path):
    _, network, history = undisturbed
    folder = shutil.copytree(killed, tmp_path / 'run')
    resumed, whole = learn(LONG, samples, folder)
    assert weights(resumed) == weights(network)
    assert [h['loss'] for h in whole] == [h['loss'] for h in history]
    assert sorted(p.name for p in folder.iterdir()) == FILES


def test_another_configuration_does_not_go_on(undisturbed, samples):
    with pytest.raises(ValueError, match='is from another configuration .*epochs = 3'):
        learn(replace(LONG, epochs=4), samples, undisturbed[0])


def test_a_damaged_checkpoint_is_named(undisturbed, samples, tmp_path):
    (tmp_path / 'checkpoint.npz').write_bytes((undisturbed[0] / 'checkpoint.npz').read_bytes()[:1000])
    with pytest.raises(ValueError, match='checkpoint.npz: not a readable checkpoint'): learn(LONG, samples, tmp_path)


def test_a_checkpoint_of_another_network_is_refused(undisturbed, samples):
    other = _prepare(replace(LONG, network='xs'), samples[0])
    with pytest.raises(ValueError, match='belongs to another network or optimizer'):
        load_checkpoint(undisturbed[0] / 'checkpoint.npz', other)


BEST_FIRST = """
save = training.save_checkpoint
def killing(path, *rest):
    save(path, *rest)
    if path.name == 'best-2.npz': os.kill(os.getpid(), signal.SIGKILL)
training.save_checkpoint = killing
"""


def test_a_kill_between_the_best_weights_and_the_checkpoint_changes_nothing(killed, run, samples, tmp_path):
    "The second epoch is better; the run is killed when its weights are written and its checkpoint is not."
    config = replace(LONG, epochs=2, patience=2, monitor='val_loss')
    whole, history = learn(config, samples, tmp_path / 'whole')
    assert history[1]['val_loss'] < history[0]['val_loss']
    child = tmp_path / 'killed'
    child.mkdir()
    for name in ('train.npz', 'val.npz'): shutil.copy(killed.parent / name, child)
    program = KILLED.format(config=config).replace('\ndef samples', BEST_FIRST + '\ndef samples')
    assert run('python', '-c', program.replace("'checkpoint.npz'", "'none'"), cwd=child).returncode == -signal.SIGKILL
    folder = child / 'run'
    assert sorted(p.name for p in folder.glob('best-*.npz')) == ['best-1.npz', 'best-2.npz']
    assert len(load_checkpoint(folder / 'checkpoint.npz')['history']) == 1
    resumed, second = learn(config, samples, folder)
    assert weights(resumed) == weights(whole) and [h['loss'] for h in second] == [h['loss'] for h in history]
    assert [p.name for p in folder.glob('best-*.npz')] == ['best-2.npz']


HOLDER = """
import sys, time
from fer_nb.run_folders import open_run
from fer_nb.time_budget import TimeBudget
with open_run(sys.argv[1]):
    print('mine', flush=True)
    time.sleep(100)
"""


def test_a_folder_has_one_writer(samples, tmp_path):
    "The second one is told who has it; a lock that a killed process left is none."
    with subprocess.Popen([sys.executable, '-c', HOLDER, tmp_path], stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b'mine\n'
        with pytest.raises(FerError, match=f'process {holder.pid} on .* writes into it'): learn(LONG, samples, tmp_path)
        holder.kill()
    with open_run(tmp_path): assert [p.name for p in tmp_path.iterdir()] == ['.lock']


def test_a_full_disk_leaves_the_last_checkpoint(undisturbed, samples, tmp_path):
    trainer, path = _prepare(LONG, samples[0]), tmp_path / 'checkpoint.npz'
    save_checkpoint(path, trainer, {'epoch': 1})
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match='File too large.*checkpoint'): save_checkpoint(path, trainer, {'epoch': 2})
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ['checkpoint.npz']


@pytest.fixture(scope='module')
def pictures(faces, tmp_path_factory):
    "Class folders with 40 faces."
    folder = tmp_path_factory.mktemp('pictures')
    for i in range(40):
        (place := folder / faces.classes[faces.labels[i]]).mkdir(exist_ok=True)
        Image.fromarray(faces.images[i]).save(place / f'{i}.png')
    return folder


def test_signals_end_a_run_that_goes_on(pictures, tmp_path):
    "SIGTERM, then Ctrl-C on the same run: complete epochs are kept, and the message says how many."
    command = [
        Path(sys.executable).with_name('fer_nb'), 'train', '--data', pictures, '--out', 'run', '--quiet',
        *(o for field in ('network=xs', 'epochs=2000', 'batch_size=8') for o in ('--set', field)),
    ]
    history = tmp_path / 'run' / 'history.csv'
    epochs = lambda: history.read_text().count('\n') - 1 if history.exists() else 0
    for sign, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        begun = epochs()
        with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as running:
            until(lambda: epochs() >= begun + 2 or running.poll() is not None, 'there are no epochs', 300)
            running.send_signal(sign)
            said = running.communicate(timeout=300)[1]
        done = len(load_checkpoint(tmp_path / 'run' / 'checkpoint.npz')['history'])
        assert running.returncode == code, said
        assert done >= begun + 2 and f'stopped; {done} of 2000 epochs are in run; the same call goes on' in said, said


# Folders of something else

@pytest.mark.parametrize('name, content, reason', [
    ('model.keras', b'of someone', 'model.keras: is there, and no run'),
    ('config.json', b'{"model_type": "bert"}', 'config.json: is there, and not of a training run'),
    ('config.json', b'{"epochs": ', 'config.json: not a YAML or JSON file'),
    ('checkpoint.npz', b'', 'checkpoint.npz: not a readable checkpoint'),
])
def test_files_of_something_else_are_not_replaced(samples, tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FerError, match=reason): learn(LONG, samples, tmp_path)
    assert (tmp_path / name).read_bytes() == content


@pytest.mark.parametrize('file', ['checkpoint.npz', 'config.json'])
def test_a_changed_run_is_named(undisturbed, samples, tmp_path, file):
    for name in ('checkpoint.npz', 'config.json'): shutil.copy(undisturbed[0] / name, tmp_path)
    if file == 'config.json': (tmp_path / file).write_text(json.dumps(asdict(replace(LONG, mixup=0.3))))
    else:
        with np.load(tmp_path / file) as z: arrays = dict(z)
        state = json.loads(str(arrays['state']))
        state['history'][1]['val_accuracy'] = 'high'
        np.savez(tmp_path / file, **arrays | {'state': json.dumps(state)})
    with pytest.raises(FerError, match=f'{file}: (not the checkpoint of|is from another configuration .mixup = 0.3)'):
        learn(LONG, samples, tmp_path)


def test_other_faces_do_not_go_on(undisturbed, samples):
    train, val = samples
    with pytest.raises(FerError, match='was begun with other faces, labels or classes'):
        learn(LONG, (replace(train, labels=np.roll(train.labels, 1)), val), undisturbed[0])


def test_a_loss_that_is_no_number_ends_the_run(samples, tmp_path):
    with pytest.raises(FerError, match='the loss of epoch .* is (nan|inf); try a lower learning_rate'):
        learn(replace(LONG, learning_rate=1e3, optimizer='sgd', epochs=20), samples, tmp_path)


# Options

STUCK = TrainConfig(
    network='tiny', ferplus=False, crop=32, epochs=12, batch_size=64, optimizer='adam', learning_rate=1e-9,
    schedule='plateau', patience=5, class_weights=True, progressive_size=24, progressive_fraction=0.2,
)


def test_small_views_adam_plateau_and_early_stopping(samples, tmp_path):
    "With a learning rate near nothing the accuracy cannot improve: the rate is halved and the run ends early."
    _, history = learn(STUCK, samples, tmp_path)
    assert len(history) == 6 and [p.name for p in tmp_path.glob('best*')] == ['best-1.npz']
    rates = [h['learning_rate'] for h in history]
    np.testing.assert_allclose(rates, [1e-9] * (len(rates) - 2) + [5e-10] * 2)
    assert len(learn(STUCK, samples, tmp_path)[1]) == len(history)  # the end is remembered


def test_class_weights_weigh_samples():
    out = dict(target=np.eye(2, dtype='float32'), expression=np.zeros((2, 2), 'float32'))
    loss = lambda *w: float(losses(out, TrainConfig(ferplus=False, label_smoothing=0.), np.array(w, 'float32'))[0])
    np.testing.assert_allclose([loss(1, 1), loss(3, 0), loss(2, 4)], np.log(2) * np.array([1, 1.5, 3]), rtol=1e-6)


def test_class_weights_are_inverse_frequencies(samples, monkeypatch):
    seen = []
    monkeypatch.setattr('fer_nb.training.make_trainer', lambda net, config, w, teachers: seen.append(w) or 1 / 0)
    for config in (STUCK, replace(STUCK, class_weights=False)):
        with pytest.raises(ZeroDivisionError): _prepare(config, samples[0])
    counts = np.bincount(samples[0].labels)
    np.testing.assert_allclose(seen[0], len(samples[0]) / counts / 7, rtol=1e-6)
    np.testing.assert_array_equal(seen[1], np.ones(7))


def test_samples_of_another_set_are_added(faces, tmp_path):
    "The extra set's training samples are learned from, by the names of its classes; what is held out stays unseen."
    noise = np.random.default_rng(0).integers(0, 256, (60, 48, 48), np.uint8)
    more = FaceSet(noise, np.arange(60) % 2, ('sad', 'happy'), split=['train'] * 40 + ['test'] * 20)
    train, val = training_data(faces, more)
    alone, same = train_val_split(faces)
    assert len(train) == len(alone) + 40 and (val.images == same.images).all()
    assert [train.classes[o] for o in train.labels[-2:]] == ['sad', 'happy']
    with pytest.raises(FerError, match='of its images are validation or test samples there'):
        training_data(faces, replace(faces.subset('test'), split=None))
    few = replace(LONG, epochs=1, sharpness=0.5)
    _, history = train_network(few, faces[:200], out=tmp_path, extra=more, progress=False)
    assert history[0]['loss'] > 0 and load_checkpoint(tmp_path / 'checkpoint.npz')['config']['sharpness'] == 0.5


# By the clock

TIMED = replace(LONG, epochs=1, max_minutes=2.0, progressive_size=24, progressive_fraction=0.4, ema_decay=0.9)


class Clock:
    "A second goes by each time that someone looks, which is once a step; `press` is when Ctrl-C is pressed."
    def __init__(self, press=float('inf')): self.now, self.press = 0.0, press
    def __call__(self):
        self.now += 1
        if self.now == self.press: raise KeyboardInterrupt
        return self.now


def timed(samples, folder, monkeypatch, press=float('inf')):
    "A run of two minutes by such a clock: its network and history."
    monkeypatch.setattr('fer_nb.training.TimeBudget', partial(TimeBudget, clock=Clock(press)))
    return learn(TIMED, samples, folder)


def test_the_schedule_ends_with_the_time(samples, tmp_path, monkeypatch):
    "Many passes, whatever `epochs` says; small views first, the learning rate nearly zero in the end."
    _, history = timed(samples, tmp_path, monkeypatch)
    shares, minutes, rates = ([row[k] for row in history] for k in ('share', 'minutes', 'learning_rate'))
    assert shares[-1] == 1 and {0.4, 0.85} <= set(shares) and shares == sorted(shares)
    assert 1.5 < minutes[-1] < 2.2 and minutes == sorted(minutes) and len(history) > 4
    assert rates[-1] < 0.02 * max(rates) and max(rates) > 0.08
    assert load_checkpoint(tmp_path / 'checkpoint.npz')['history'] == history
    assert timed(samples, tmp_path, monkeypatch)[1] == history  # complete
    assert (tmp_path / 'history.csv').read_text().splitlines()[0].endswith(',minutes,share')


def test_a_timed_run_goes_on_with_the_time_that_is_left(samples, tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt) as pressed: timed(samples, tmp_path, monkeypatch, press=80)
    before = load_checkpoint(tmp_path / 'checkpoint.npz')['history']
    assert f'{before[-1]["minutes"]:.1f} of 2 minutes are in' in pressed.value.__notes__[0]
    _, history = timed(samples, tmp_path, monkeypatch)
    assert history[:len(before)] == before and history[len(before)]['minutes'] > before[-1]['minutes']
    assert 1.5 < history[-1]['minutes'] < 2.2 and history[-1]['share'] == 1


def test_a_budget_and_early_stopping(samples, tmp_path, monkeypatch):
    "A rate of nothing gets no better: the run ends before its time, and stays so."
    monkeypatch.setattr('fer_nb.training.TimeBudget', partial(TimeBudget, clock=Clock()))
    stuck = replace(STUCK, max_minutes=5.0)
    _, history = learn(stuck, samples, tmp_path)
    assert len(history) == 6 and history[-1]['share'] < 1
    assert learn(stuck, samples, tmp_path)[1] == history


# Distillation

@pytest.fixture(scope='module')
def teacher(undisturbed): return undisturbed[0] / 'model.keras'


@pytest.fixture(scope='module')
def soft_labels(teacher, samples, tmp_path_factory):
    "A file of soft labels by a teacher, counted twice, and what `make_soft_labels` returned."
    path = tmp_path_factory.mktemp('soft_labels') / 'soft_labels.npz'
    config = TrainConfig(crop=32)
    return path, make_soft_labels([teacher, teacher], samples[0], path, config=config, views=2, progress=False)


def distilled(source) -> TrainConfig:
    "A configuration that learns from teachers alone, from smaller views at first."
    return TrainConfig(
        network='tiny', epochs=4, crop=32, batch_size=50, teachers=str(source), distill_weight=1.0,
        distill_temperature=2.0, progressive_size=24, random_erasing=0.0, noise=0.0,
        optimizer='adam', learning_rate=0.02, seed=3,
    )


@pytest.fixture(scope='module')
def distillations(soft_labels, teacher, samples, tmp_path_factory):
    "Two runs, one with soft labels from a file and one with a live teacher: folder and history."
    folders = {name: tmp_path_factory.mktemp(name) for name in ('file', 'live')}
    teachers = {'file': soft_labels[0], 'live': teacher}
    return {name: (folder, learn(distilled(teachers[name]), samples, folder)[1]) for name, folder in folders.items()}


def test_soft_labels_are_probabilities(soft_labels, samples):
    path, probabilities = soft_labels
    assert probabilities.shape == (200, 7)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(load_soft_labels(path, samples[0]), probabilities, atol=1e-3)


@pytest.mark.parametrize('name', ['file', 'live'])
def test_a_network_learns_from_teachers_alone(distillations, name):
    history = distillations[name][1]
    assert 0 < history[-1]['loss'] < history[0]['loss']


def test_a_live_view_is_not_the_mean_of_views(distillations):
    assert distillations['file'][1][0]['loss'] != distillations['live'][1][0]['loss']


def test_a_run_does_not_go_on_with_other_soft_labels(distillations, soft_labels, teacher, samples):
    "Other soft labels under the same name are refused; the same ones, written again, are not."
    path, folder = soft_labels[0], distillations['file'][0]
    known, said = path.read_bytes(), file_fingerprint(path)
    try:
        make_soft_labels([teacher], samples[0], path, config=TrainConfig(crop=32), views=1, progress=False)
        with pytest.raises(ValueError, match='soft_labels.npz held something else'):
            learn(distilled(path), samples, folder)
        path.write_bytes(known)
        with np.load(path) as z: arrays = dict(z)
        np.savez_compressed(path, **arrays)
        assert path.read_bytes() != known and file_fingerprint(path) == said
        assert len(learn(distilled(path), samples, folder)[1]) == 4
    finally: path.write_bytes(known)


def test_fingerprints_of_files_that_are_gone_are_empty(soft_labels):
    path, _ = soft_labels
    found = input_fingerprints(replace(distilled(path), init_from='gone.keras'))
    assert found == {str(path): file_fingerprint(path), 'gone.keras': ''} and file_fingerprint(path)


def test_a_network_starts_from_saved_weights(undisturbed, teacher, samples):
    fresh, begun = (_prepare(replace(LONG, init_from=start), samples[0]).network for start in ('', str(teacher)))
    assert weights(begun) == weights(undisturbed[1]) != weights(fresh)
    z = main_logits(keras.saving.load_model(teacher), samples[1].images)
    np.testing.assert_array_equal(main_logits(begun, samples[1].images), z)


def test_a_live_teacher_computes_in_the_precision_of_the_configuration(teacher, samples):
    "In 16 bits it gives nearly the same probabilities."
    images = samples[0].images[:64, ..., None]
    ask = lambda precision: mean_probabilities(load_teachers([teacher], 7, precision=precision), images)
    whole, half = (keras.ops.convert_to_numpy(ask(p)) for p in ('float32', 'mixed_bfloat16'))
    gap = np.abs(whole - half).max()
    assert 0 < gap < 0.05
    assert (whole.argmax(1) == half.argmax(1)).mean() > 0.9


# Files that are something else

def test_soft_labels_about_other_faces_are_named(soft_labels, samples):
    with pytest.raises(ValueError, match='soft_labels.npz: holds predictions for other faces'):
        load_soft_labels(soft_labels[0], samples[0][np.arange(100)])


def test_a_file_that_holds_no_soft_labels_is_named(undisturbed, samples):
    with pytest.raises(ValueError, match='not a readable file of predictions'):
        load_soft_labels(undisturbed[0] / 'checkpoint.npz', samples[0])


def test_a_teacher_that_is_no_network_is_named(undisturbed, samples, tmp_path):
    for name, reason in (('history.csv', 'not a saved network'), ('checkpoint.npz', 'not a readable file of predict')):
        with pytest.raises(ValueError, match=f'{name}: {reason}'):
            make_soft_labels([undisturbed[0] / name], samples[0], tmp_path / 'x.npz')


def test_a_teacher_of_other_classes_is_named(teacher):
    with pytest.raises(ValueError, match=re.escape(f'{teacher}: knows 7 classes, the data has 5')):
        load_teachers([teacher], 5)


def test_weights_of_another_network_do_not_start(teacher, samples, tmp_path):
    config = replace(LONG, network='xs', init_from=str(teacher))
    with pytest.raises(ValueError, match='model.keras: cannot start xs'): learn(config, samples, tmp_path)
