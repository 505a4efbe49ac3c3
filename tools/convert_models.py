"""Rewrite the metadata of model files with the present keys: `convert_models.py models/m.about.yaml models/m.keras ...`
The weights stay byte for byte; the logits of 64 faces are compared bit for bit."""
import sys
from pathlib import Path

import numpy as np
import yaml

from fer_nb.model_files import litert_runner, read_metadata, read_model, write_metadata

FACES = np.random.default_rng(0).integers(0, 256, (64, 48, 48), np.uint8)
KEYS = {'licence': 'license', 'looks': 'test_log'}
LOG = {'look': 'evaluation', 'when': 'date', 'rows': 'split', 'why': 'reason'}


def logits(path: Path) -> np.ndarray:
    if path.suffix == '.tflite': return litert_runner(read_model(path)[1])(FACES)
    import keras

    out = keras.saving.load_model(path, compile=False)(FACES[..., None].astype('float32'), training=False)
    return np.asarray(out['expression'] if isinstance(out, dict) else out)


def converted(meta: dict, about: dict) -> dict:
    meta = {KEYS.get(k, k): v for k, v in meta.items()} | about
    meta['network'] = meta['network'].removeprefix('student_')
    meta['test_log'] = [{LOG.get(k, k): v for k, v in entry.items()} for entry in meta['test_log']]
    meta['uncertain'] = {{'rows': 'samples'}.get(k, k): v for k, v in meta['uncertain'].items()}
    return meta


about, *files = map(Path, sys.argv[1:])
for path in files:
    before = logits(path)
    meta = converted(read_metadata(path), yaml.safe_load(about.read_text(encoding='utf-8')))
    write_metadata(path, meta)
    np.testing.assert_array_equal(logits(path), before)
    print(path, 'same logits;', ', '.join(meta))
