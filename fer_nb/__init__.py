__version__ = "0.1.0"


def __getattr__(name):
    "`from fer_nb import Recognizer` imports what it needs only then."
    if name != 'Recognizer': raise AttributeError(f"module 'fer_nb' has no attribute {name!r}")
    from fer_nb.core import check_opencv
    check_opencv()
    from fer_nb.recognition import Recognizer
    return Recognizer
