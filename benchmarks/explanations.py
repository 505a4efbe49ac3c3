"""`make explanations`: do class activation maps show what the answers depend on? On PublicTest of FER2013.

Reads FER_NB_DATA, writes models/explanations.json. Two checks: cells of the face are taken away or put back in the
order of a map, and maps of networks with new random weights are compared with the real ones."""
import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity

from fer_nb.class_maps import answer_layer, class_maps
from fer_nb.classification import Classifier, classify
from fer_nb.datasets import load_dataset
from fer_nb.model_files import find_model
from fer_nb.priors import choose_prior

OUT = Path('models/explanations.json')
CELLS, CELL = 36, 8  # 6 x 6 cells of 8 x 8 pixels, as the maps have them
STEPS = np.arange(0, CELLS + 1, 3)  # cells that are taken away, or put back
REMOVALS = {'deletion': 'the mean gray of the face', 'insertion': 'the face, blurred (sigma 8 pixels)'}


def estimate(values: np.ndarray) -> list[float]:
    "A mean with its 95 % interval, from the standard error: [mean, low, high]."
    mean, error = values.mean(), 1.96 * values.std(ddof=1) / len(values) ** .5
    return [round(float(o), 4) for o in (mean, mean - error, mean + error)]


def log_odds(p: np.ndarray) -> np.ndarray: return np.log(p.clip(1e-9)) - np.log((1 - p).clip(1e-9))


def area(curve: np.ndarray) -> np.ndarray: return np.trapezoid(curve, axis=-1) / (len(STEPS) - 1)


def covered(faces: np.ndarray, ranks: np.ndarray, n: int, kind: str) -> np.ndarray:
    "Faces without the `n` best cells (deletion), or with nothing but these (insertion)."
    best = np.kron((ranks < n).reshape(-1, 6, 6), np.ones((1, CELL, CELL))) > 0
    if kind == 'deletion': return np.where(best, faces.mean(axis=(1, 2), keepdims=True), faces).round().astype(np.uint8)
    blurred = np.stack([cv2.GaussianBlur(face, (0, 0), 8) for face in faces])
    return np.where(best, faces, blurred)


class Asked:
    "A model file, the faces, and what it calls them."

    def __init__(self, model: str, faces: np.ndarray):
        self.net, self.faces = Classifier(find_model(model)), faces
        self.prior = choose_prior(self.net.about)
        shares = classify(self.net, faces, prior=self.prior)
        self.best, self.next = np.argsort(-shares, axis=1)[:, :2].T
        weights, _ = answer_layer(self.net.about, self.prior)
        self.maps = class_maps(self.net.feature_maps(faces), weights)

    def p(self, images: np.ndarray) -> np.ndarray:
        "The probability of the label that the whole face got."
        return classify(self.net, images, prior=self.prior)[np.arange(len(images)), self.best]

    def occlusion(self) -> np.ndarray:
        "How much the log odds fall when one cell is gray: the map that asks the network 36 times."
        fallen = []
        for cell in range(CELLS):
            ranks = np.tile(np.arange(CELLS) != cell, (len(self.faces), 1))  # 0 for this cell alone
            fallen.append(log_odds(self.p(self.faces)) - log_odds(self.p(covered(self.faces, ranks, 1, 'deletion'))))
        return np.stack(fallen, axis=1)


def rankings(asked: Asked) -> dict[str, np.ndarray]:
    "The maps that are compared, each (N, 36)."
    n, every = len(asked.faces), np.arange(len(asked.faces))
    flat, rng = asked.maps.reshape(n, -1, CELLS), np.random.default_rng(0)
    label = flat[every, asked.best]
    contrast = label - flat[every, asked.next]
    place = np.arange(6) - 2.5
    center = -np.add.outer(place**2, place**2).ravel()
    same = np.stack([contrast[(asked.best == c) & (every != i)].mean(axis=0) for i, c in enumerate(asked.best)])
    return {
        'map, label against the next': contrast, 'map, label against all others': label - flat.mean(axis=1),
        'map, label alone': label, 'mean map of other faces with the label': same,
        'center first': center + rng.uniform(0, .1, (n, CELLS)), 'random': rng.uniform(size=(n, CELLS)),
        'occlusion, cell by cell': asked.occlusion(),
    }


def curves(asked: Asked) -> dict:
    "The probability of the label as cells go or come, and the areas below the curves."
    found = {}
    for name, scores in rankings(asked).items():
        ranks = np.argsort(np.argsort(-scores, axis=1), axis=1)
        for kind in REMOVALS:
            p = np.stack([asked.p(covered(asked.faces, ranks, n, kind)) for n in STEPS], axis=1)
            found[kind, name] = p
        print(name, *(f'{kind} {area(found[kind, name]).mean():.3f}' for kind in REMOVALS), flush=True)
    areas = {k: area(p) for k, p in found.items()}
    report: dict = {kind: {} for kind in REMOVALS}
    for (kind, name), p in found.items():
        entry = dict(area=estimate(areas[kind, name]), curve=p.mean(axis=0).round(4).tolist())
        for other in ('random', 'center first', 'mean map of other faces with the label'):
            if other != name: entry[f'minus {other}'] = estimate(areas[kind, name] - areas[kind, other])
        report[kind][name] = entry
    return report


def contrasts(network, faces: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    "Maps (N, 6, 6) of one class against another, of a Keras network."
    features = network.predict(faces[..., None], batch_size=100, verbose=0)['features']
    kernel, _ = network.get_layer('expression').get_weights()
    maps = class_maps(features, kernel)
    every = np.arange(len(faces))
    return maps[every, pairs[:, 0]] - maps[every, pairs[:, 1]]


def with_new_weights(network, n: int):
    "A copy whose last `n` layers with weights have new random ones."
    import keras

    keras.utils.set_random_seed(n)
    copy = keras.models.clone_model(network)
    layers = [(new, old) for new, old in zip(copy.layers, network.layers) if old.weights]
    for new, old in layers[:len(layers) - n]: new.set_weights(old.get_weights())
    return copy


def alike(maps: np.ndarray, others: np.ndarray) -> dict:
    "Rank correlation of the cells, and SSIM of the enlarged maps, over all faces."
    ranks = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(maps, others)]

    def enlarged(a):
        scaled = (a - a.min()) / max(a.max() - a.min(), 1e-12)
        return cv2.resize(scaled.astype(np.float32), (48, 48), interpolation=cv2.INTER_CUBIC)

    ssim = [structural_similarity(enlarged(a), enlarged(b), data_range=1.) for a, b in zip(maps, others)]
    return dict(rank=estimate(np.nan_to_num(ranks)), rank_absolute=estimate(np.abs(np.nan_to_num(ranks))),
                ssim=estimate(np.array(ssim)))


def shuffled(groups: np.ndarray) -> np.ndarray:
    "For each face another one of its group."
    places = np.arange(len(groups))
    for group in np.unique(groups):
        inside = np.random.default_rng(0).permutation(np.flatnonzero(groups == group))
        places[inside] = np.roll(inside, 1)
    return places


def randomized(path: Path, faces: np.ndarray) -> dict:
    "How alike the maps are when ever more of the network, from its end on, has new random weights."
    from fer_nb.keras_files import load_network
    from fer_nb.network_outputs import with_map

    network = with_map(load_network(path))
    logits = network.predict(faces[..., None], batch_size=100, verbose=0)['logits']
    pairs = np.argsort(-logits, axis=1)[:, :2]
    real = contrasts(network, faces, pairs)
    mirrored = contrasts(network, faces[:, :, ::-1], pairs)[:, :, ::-1]
    report = {
        'the mirrored face': alike(real, mirrored),
        'another face with the label': alike(real, real[shuffled(pairs[:, 0])]),
        'another face': alike(real, real[shuffled(np.zeros(len(faces)))]),
    }
    depth = sum(bool(layer.weights) for layer in network.layers)
    shares = {'last layer': 0, 'last quarter': .25, 'last half': .5, 'last three quarters': .75, 'all': 1}
    stages = {stage: max(1, round(share * depth)) for stage, share in shares.items()}
    for stage, n in stages.items():
        report[f'new weights: {stage}'] = alike(real, contrasts(with_new_weights(network, n), faces, pairs))
        print(stage, n, report[f'new weights: {stage}'], flush=True)
    return report


def measure(model: str, faces, most: int) -> dict:
    "Both checks of one model."
    step = max(1, len(faces.images) // most)
    images = faces.images[::step][:most]
    asked = Asked(model, images)
    about = dict(samples='PublicTest', n=len(images), every=step, prior=str(asked.prior), format='int8')
    few = images[::max(1, len(images) // 500)][:500]
    return about | dict(removed=(STEPS / CELLS).round(4).tolist(), replaced_by=REMOVALS, curves=curves(asked),
                        randomized=dict(n=len(few)) | randomized(Path(f'models/{model}.keras'), few))


if __name__ == '__main__':
    if not (data := os.environ.get('FER_NB_DATA')): sys.exit('FER_NB_DATA has to name the folder with FER2013')
    faces = load_dataset(data)
    faces, most = faces[faces.split == 'PublicTest'], int(os.environ.get('FACES', '1200'))
    report = {model: measure(model, faces, most) for model in ('m', 's')}
    OUT.write_text(json.dumps(report, indent=1) + '\n')
    print(f'wrote {OUT}')
