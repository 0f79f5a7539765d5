"""The parts of `device.py`, and what they measure with. In here `longlive` means this tree, installed or not."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

package = ModuleType("longlive")
package.__path__ = [str(Path(__file__).resolve().parents[3])]
sys.modules.setdefault("longlive", package)
