"""minihub: a multi-user notebook hub in one file.

Rules of this file: it holds the two version numbers and imports nothing, so that ``--version``
costs nothing.
"""

__version__ = "0.1.0"

#: The JupyterHub release whose API this hub speaks. Clients parse it as a PEP 440 version.
JUPYTERHUB_VERSION = "6.1.1"
