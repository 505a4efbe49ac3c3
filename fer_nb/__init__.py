"""Facial expression recognition in images, video and from the camera, with your own classes and data if you like."""
from importlib import import_module

__version__ = "0.1.0"

# What most people need, by module. A name is imported when it is first used: `from fer_nb import Recognizer` loads no more.
_OFFERED = {
    'core': ['FerError'],
    'labels': ['EXPRESSIONS'],
    'images': ['read_image'],
    'data': ['FaceSet'],
    'datasets': ['load_dataset'],
    'synthetic': ['synthetic_faces'],
    'audit': ['describe_dataset'],
    'models': ['build_model'],
    'train_config': ['TrainConfig'],
    'training': ['train'],
    'evaluation': ['evaluate'],
    'baselines': ['Baseline'],
    'recognition': ['Recognizer', 'Face', 'Result'],
    'drawing': ['draw_faces'],
    'face_stream': ['FaceStream', 'StreamOptions', 'track_video'],
    'video_analysis': ['analyze_video'],
    'batch_analysis': ['analyze_many'],
    'upload': ['UploadPanel'],
    'webcam': ['LiveView'],
    'browser_camera': ['BrowserCamera'],
    'classes_panel': ['ClassesPanel'],
    'export': ['export_model'],
    'fine_tune_config': ['FineTuneConfig'], 'fine_tuning': ['fine_tune'],
    'cross_validation': ['leave_one_subject_out'],
    'crop_calibration': ['calibrate_crop'],
}
__all__ = [name for names in _OFFERED.values() for name in names]


def __getattr__(name: str):
    for module, names in _OFFERED.items():
        if name in names:
            from .core import check_opencv
            check_opencv()
            return getattr(import_module(f'.{module}', __name__), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]: return sorted([*globals(), *__all__])
