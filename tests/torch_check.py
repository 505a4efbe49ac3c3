"""PyTorch's fused kernels against Keras' own layers; under KERAS_BACKEND=torch it prints what it checked."""
import warnings

import keras
import numpy as np
import torch

from fer_nb import fused
from fer_nb.fused import forward, has_bfloat16, on_torch, warp
from fer_nb.models import MODELS, build_model


def noise(n, side): return torch.randint(0, 256, (n, side, side, 1)).float()


def networks():
    "The networks give what Keras gives, at several sizes."
    for name in [n for n in MODELS if n != 'baseline']:
        network = build_model(name, ferplus=True)
        for side in (40, 47, 48):
            x = noise(3, side)
            with torch.no_grad(): slow, quick = network(x), forward(network)(x)
            for head in slow: np.testing.assert_allclose(slow[head], quick[head], atol=2e-3)


def statistics():
    "Batch norm moves its statistics alike."
    network, x = build_model('xs', ferplus=True), noise(64, 40)
    before = network.get_weights()
    network(x, training=True)
    slow = network.get_weights()
    network.set_weights(before)
    forward(network)(x, training=True)
    assert any((a != b).any() for a, b in zip(before, slow))
    for a, b in zip(slow, network.get_weights()): np.testing.assert_allclose(a, b, rtol=.01, atol=1e-2)


def warps():
    maps = torch.tensor([[.9, .1, 1, -.1, .9, 2, 0, 0], [-1, 0, 47, 0, 1, 0, 0, 0]])
    ramp = torch.arange(48.)[:, None] + 2 * torch.arange(48.)[None]
    x = torch.stack([ramp, ramp])[..., None]
    slow = keras.ops.image.affine_transform(x, maps.clone(), fill_mode='nearest')[:, 4:44, 4:44]
    np.testing.assert_allclose(warp(x, maps, 4), slow, atol=1e-3)


def bfloat16():
    "Nearly what 32 bits give; exactly that, with a warning, where there are no kernels."
    network = build_model('xs')
    keras.config.set_dtype_policy('mixed_bfloat16')
    twin = build_model('xs')
    twin.set_weights(network.get_weights())
    x = noise(4, 48)
    whole = forward(network)(x)
    for known in {has_bfloat16(), False}:
        fused.has_bfloat16 = lambda known=known: known
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter('always')
            half = forward(twin)(x)
        assert len(said) == (not known)
        assert (half - whole).abs().max() < .1 and torch.equal(half, whole) == (not known)


if __name__ == '__main__':
    assert on_torch()
    for check in (networks, statistics, warps, bfloat16):
        check()
        print(check.__name__)
