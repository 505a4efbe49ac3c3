"""Keras' other backends in processes of their own: TensorFlow reads what JAX trained, PyTorch computes the same."""
import importlib.util

import keras
import numpy as np
import pytest

UNDER_JAX = """
import keras
from functools import partial

import numpy as np
from fer_nb.data import FaceSet
from fer_nb.models import MODELS, build_around, residual_body
from fer_nb.training import TrainConfig, fit

MODELS['tiny'] = partial(build_around, residual_body(4, 8))
with np.load('rows.npz') as z: faces = FaceSet(z['images'], z['labels'], tuple(z['classes'].tolist()))
recipe = TrainConfig(network='tiny', epochs=2, crop=32, batch_size=32, mixup=0.2, seed=3)
network, history = fit(recipe, faces, faces[np.arange(16)], 'jax', progress=False)
np.savez('said.npz', logits=network.predict(faces.images[..., None], verbose=0), loss=[h['loss'] for h in history])
print(keras.backend.backend())
"""


def test_trained_under_jax_used_under_tensorflow(faces, run, tmp_path):
    "The file that JAX wrote loads here and gives the same logits."
    assert keras.backend.backend() == 'tensorflow'
    some = faces[:64]
    np.savez(tmp_path / 'rows.npz', images=some.images, labels=some.labels, classes=list(some.classes))
    done = run('python', '-c', UNDER_JAX, cwd=tmp_path, env={'KERAS_BACKEND': 'jax'})
    assert done.stdout.split() == ['jax'], done.stderr
    with np.load(tmp_path / 'said.npz') as said:
        network = keras.saving.load_model(tmp_path / 'jax' / 'model.keras')
        np.testing.assert_allclose(network.predict(some.images[..., None], verbose=0), said['logits'], atol=1e-4)
        assert np.ptp(said['logits']) > 0.01 and np.isfinite(said['loss']).all()


@pytest.mark.skipif(not importlib.util.find_spec('torch'), reason='PyTorch is not installed')
def test_fused_kernels_of_pytorch(root, run):
    done = run('python', '-W', 'ignore', root / 'tests' / 'torch_check.py', env={'KERAS_BACKEND': 'torch'})
    assert done.stdout.split() == ['networks', 'statistics', 'warps', 'bfloat16'], done.stdout + done.stderr[-2000:]
