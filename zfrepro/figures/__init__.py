"""Pictures: arrays in, figures out. The only room that knows matplotlib."""

import os

# Figures are files here and need no backend; a notebook's, in the environment, may not be there to be imported.
_backend = os.environ.pop("MPLBACKEND", None)
try:
    import matplotlib  # noqa: F401
finally:
    if _backend is not None:
        os.environ["MPLBACKEND"] = _backend
