"""Keras' other backends in processes of their own: what they train, TensorFlow reads."""
import importlib.util

import keras
import numpy as np
import pytest

TRAIN = """
from dataclasses import replace
from functools import partial
from itertools import count
import keras
import numpy as np
from fer_nb import training
from fer_nb.data import FaceSet
from fer_nb.models import MODELS, build_around, build_model, residual_body
from fer_nb.time_budget import TimeBudget
from fer_nb.train_config import TrainConfig

MODELS['tiny'] = partial(build_around, residual_body(4, 8))
with np.load('samples.npz') as z: faces = FaceSet(z['images'], z['labels'], tuple(z['classes'].tolist()))
config = TrainConfig(
    network='tiny', epochs=4, crop=32, batch_size=16, mixup=0.2, no_aug_fraction=0.5, rotation=0.0, noise=0.0,
    optimizer='adam', learning_rate=0.01, seed=3,
)
network, history = training.fit(config, faces, faces[np.arange(16)], 'run', progress=False)
budget = replace(config, max_minutes=0.6, optimizer='muon', learning_rate=0.02, progressive_size=24)
training.TimeBudget = partial(TimeBudget, clock=count().__next__)  # a second goes by with each look at the clock
_, timed = training.fit(budget, faces, faces[np.arange(16)], 'timed', progress=False)
assert timed[-1]['share'] == 1 and 0.4 < timed[-1]['minutes'] < 0.9, timed[-1]
assert timed[-1]['learning_rate'] < 0.01 and np.isfinite([h['loss'] for h in timed]).all()
logits = network.predict(faces.images[..., None], verbose=0)
keras.config.set_dtype_policy('mixed_bfloat16')
half = build_model('tiny')
half.set_weights(network.get_weights())
halves = half.predict(faces.images[..., None], verbose=0)
np.savez('said.npz', logits=logits, halves=halves, loss=[h['loss'] for h in history])
print(keras.backend.backend())
"""
HAS_TORCH = importlib.util.find_spec('torch')
TORCH = pytest.param('torch', marks=pytest.mark.skipif(not HAS_TORCH, reason='PyTorch is not installed'))


@pytest.mark.parametrize('backend', ['jax', TORCH])
def test_trained_elsewhere_used_under_tensorflow(faces, run, tmp_path, backend):
    "The loss falls, and the file that another backend wrote loads here and gives the same logits."
    assert keras.backend.backend() == 'tensorflow'
    some = faces[:96]
    np.savez(tmp_path / 'samples.npz', images=some.images, labels=some.labels, classes=list(some.classes))
    done = run('python', '-W', 'ignore', '-c', TRAIN, cwd=tmp_path, env={'KERAS_BACKEND': backend})
    assert done.stdout.split() == [backend], done.stderr
    with np.load(tmp_path / 'said.npz') as said:
        network = keras.saving.load_model(tmp_path / 'run' / 'model.keras')
        np.testing.assert_allclose(network.predict(some.images[..., None], verbose=0), said['logits'], atol=1e-4)
        assert np.ptp(said['logits']) > 0.01 and np.isfinite(said['loss']).all()
        assert said['loss'][1:].min() < said['loss'][0]
        assert 0 < np.abs(said['halves'] - said['logits']).max() < 0.1
