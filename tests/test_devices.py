"""Training on two virtual devices of the processor, in a process of its own: the curve of one device, whole files."""
import json

import keras
import numpy as np
import pytest

from fer_nb.checkpoints import load_checkpoint
from fer_nb.fer2013 import write_fer2013
from fer_nb.models import main_logits

pytestmark = pytest.mark.timeout(1200)  # all runs are made by the first test
PROGRAM = """
import json, shutil
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
import keras
import numpy as np
from fer_nb import training
from fer_nb.cli import main
from fer_nb.data import FaceSet
from fer_nb.distillation import _save
from fer_nb.core import FerError
from fer_nb.models import MODELS, build_around, build_model, main_logits, residual_body
from fer_nb.time_budget import TimeBudget
from fer_nb.train_config import TrainConfig

MODELS['tiny'] = partial(build_around, residual_body(4, 8))
with np.load('samples.npz') as z:
    faces = FaceSet(z['images'], z['labels'], tuple(z['classes'].tolist()), votes=z['votes'])
train, val, soft = faces[:120], faces[120:153], np.random.default_rng(0).dirichlet(np.ones(7), 120)
_save(Path('soft.npz'), soft, [], np.ones(1), train, 1)
config = TrainConfig(
    network='tiny', epochs=4, crop=32, batch_size=24, mixup=0.4, sharpness=0.3, noise=0.3, random_erasing=0.5,
    teachers='soft.npz', patience=9, monitor='val_loss', learning_rate=0.05, seed=3,
)
assert config.ema_decay and config.ferplus and config.rotation and config.no_aug_fraction * config.epochs < 1
run_epochs, score, places = training._run_epochs, training.score_averaged, []
def watched(trainer, *rest):
    places.append(len(trainer.network.variables[0].value.devices()))
    run_epochs(trainer, *rest)
training._run_epochs = watched

def learn(out, devices, *, copy=None, stop=9):
    "A run, or a stopped one; `copy`: (epoch, name) of a copy of its folder as a kill in the next epoch would leave it."
    def scored(trainer, *data):
        epoch = round(int(trainer.optimizer.iterations) / 5)
        if epoch == stop: raise KeyboardInterrupt
        if copy and epoch == copy[0] + 1: shutil.copytree(out, copy[1])
        return score(trainer, *data)
    training.score_averaged, network = scored, None
    with suppress(KeyboardInterrupt):
        network, _ = training.fit(config, train, val, out, progress=False, devices=devices)
        assert {len(v.value.devices()) for v in network.variables} == {1}
    assert (network is None) == (stop < 9) and keras.distribution.distribution() is None
    return network

networks = {'one': learn('one', 1, copy=(1, 'moved')), 'two': learn('two', 2, copy=(2, 'again'))}
learn('moved', 2, stop=3)
networks |= {name: learn(name, n) for name, n in (('again', 2), ('moved', 1))}
training.score_averaged = score

def go_on(out, devices, network):
    "A run that goes on with a network from outside, with a frozen layer and a rate for the head of its own."
    groups = {v.path: int(v.path.startswith('expression')) for v in network.trainable_variables}
    options = dict(network=network, groups=groups, group_rates=lambda epoch: [0.5, 1], devices=devices)
    return training.fit(replace(config, epochs=2, patience=0), train, val, out, progress=False, **options)[0]

for name, n in (('given_one', 1), ('given_two', 2)):
    keras.utils.set_random_seed(5)
    network = build_model('tiny', ferplus=True)
    first = next(layer for layer in network.layers if layer.trainable_weights)
    first.trainable, before = False, network.get_weights()
    networks[name] = go_on(name, n, network)
    assert networks[name] is network and not first.trainable
    assert {len(v.value.devices()) for v in network.variables} == {1}
    same = [np.array_equal(a, b) for a, b in zip(before, network.get_weights())]
    assert same[0] and not any(same[len(first.weights):])

class Unknown(keras.Model):
    def __init__(self, units): super().__init__(name='unknown')

try: training.fit(config, train, val, 'unknown', progress=False, network=Unknown(7), devices=2)
except FerError as e: no_copy = str(e)
np.savez('logits.npz', **{name: main_logits(o, val.images[:7]) for name, o in networks.items()})

class Clock:
    "A second goes by each time that someone looks."
    now = 0
    def __call__(self):
        self.now += 1
        return self.now

training.TimeBudget = partial(TimeBudget, clock=Clock())
options = ['--set=network=tiny', '--set=crop=32', '--set=batch_size=24', '--set=progressive_size=24', '--quiet']
code = main(['train', '--data', 'faces.csv', '--devices', '2', '--max-minutes', '1', '--out', 'timed', *options])
refused = main(['train', '--data', 'faces.csv', '--devices', '3', *options])
print(json.dumps([places, code, refused, no_copy]))
"""
ENV = {
    'KERAS_BACKEND': 'jax', 'XLA_FLAGS': '--xla_force_host_platform_device_count=2', 'TF_CPP_MIN_LOG_LEVEL': '3',
}


@pytest.fixture(scope='module')
def runs(faces, run, tmp_path_factory):
    "The folder with the runs, and what the program and the command printed."
    folder, some = tmp_path_factory.mktemp('devices'), faces[:153]
    votes = np.random.default_rng(1).integers(0, 5, (153, 10)).astype('uint8')
    np.savez(folder / 'samples.npz', images=some.images, labels=some.labels, classes=list(some.classes), votes=votes)
    write_fer2013(some, folder / 'faces.csv')
    done = run('python', '-W', 'ignore', '-c', PROGRAM, cwd=folder, env=ENV, timeout=900)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout.splitlines()[-1]), done.stderr


def history(runs, name): return load_checkpoint(runs[0] / name / 'checkpoint.npz')['history']


def arrays(runs, name):
    with np.load(runs[0] / name / 'checkpoint.npz') as z: return {k: z[k] for k in z.files if k != 'state'}


def curves(runs, name) -> np.ndarray:
    names = ('loss', 'accuracy', 'val_loss', 'val_accuracy', 'learning_rate')
    return np.array([[row[k] for k in names] for row in history(runs, name)])


def test_the_weights_were_on_as_many_devices_as_asked(runs):
    assert runs[1][0] == [1, 2, 2, 2, 1, 1, 2, 2]


@pytest.mark.parametrize('name', ['two', 'moved'])
def test_the_number_of_devices_does_not_change_the_curve(runs, name):
    "Two all the way, or one, two, and one again: but for rounding, the same losses, statistics and averages."
    one, other = curves(runs, 'one'), curves(runs, name)
    assert one.shape == (4, 5) and np.ptp(one[:, 0]) > 0.01 and len(set(one[:, 2])) == 4
    np.testing.assert_allclose(other, one, atol=1e-4)
    assert not np.array_equal(other, one)
    for k, value in arrays(runs, 'one').items():
        np.testing.assert_allclose(arrays(runs, name)[k], value, rtol=1e-3, atol=1e-3, err_msg=k)


def test_a_stopped_run_on_two_devices_ends_in_the_same_weights(runs):
    np.testing.assert_array_equal(curves(runs, 'again'), curves(runs, 'two'))
    again = arrays(runs, 'again')
    for k, value in arrays(runs, 'two').items(): np.testing.assert_array_equal(again[k], value, err_msg=k)


@pytest.mark.parametrize('name', ['one', 'two', 'again', 'moved'])
def test_what_is_left_is_a_whole_network_for_any_backend(runs, faces, name):
    "Seven faces, which two devices cannot share, give under TensorFlow what the returned network said."
    assert keras.backend.backend() == 'tensorflow'
    network = keras.saving.load_model(runs[0] / name / 'model.keras')
    with np.load(runs[0] / 'logits.npz') as z: one, said = z['one'], z[name]
    np.testing.assert_allclose(main_logits(network, faces.images[120:127]), said, atol=1e-4)
    np.testing.assert_allclose(said, one, atol=1e-3)
    assert np.ptp(one) > 0.01


def test_a_given_network_learns_on_two_devices_as_on_one(runs):
    one, two = curves(runs, 'given_one'), curves(runs, 'given_two')
    np.testing.assert_allclose(two, one, atol=1e-4)
    assert not np.array_equal(two, one) and np.abs(one - curves(runs, 'one')[:2]).max() > 0.01
    for k, value in arrays(runs, 'given_one').items():
        np.testing.assert_allclose(arrays(runs, 'given_two')[k], value, rtol=1e-3, atol=1e-3, err_msg=k)
    with np.load(runs[0] / 'logits.npz') as z:
        np.testing.assert_allclose(z['given_two'], z['given_one'], atol=1e-3)
        assert np.abs(z['given_one'] - z['one']).max() > 0.01


def test_a_network_that_cannot_be_copied_is_refused(runs):
    assert runs[1][3].startswith('network unknown: cannot be copied, which several devices need (')


def test_the_command_trains_by_the_clock_on_two_devices(runs):
    _, code, refused, _ = runs[1]
    last = history(runs, 'timed')[-1]
    assert code == 0 and last['share'] == 1 and 0.7 < last['minutes'] < 1.2
    assert refused == 2 and '3 devices are wanted, and JAX has 2: cpu:0, cpu:1' in runs[2]
    assert 'XLA_FLAGS=--xla_force_host_platform_device_count=3' in runs[2]
