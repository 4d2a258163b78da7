"""The engine side of Checkpoint Engine: takes new weights into a running inference worker.

``checkpoint_engine.worker`` is what engines import. Importing the package imports neither torch nor
an engine.
"""

__version__ = "0.1.0"
