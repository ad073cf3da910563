"""Every definition that more than one page of the course uses: the source of truth behind the notebooks."""

__version__ = "0.1.0"
