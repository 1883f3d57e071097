"""The tests, in the tree of the package, and the root of the checkout that they read."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
