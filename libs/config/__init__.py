"""Settings: one frozen dataclass per reader, filled from one section of one TOML file.

Only this package and `deploy` look at the environment.
"""

from libs.config.environment import Environment, Override, overlay
from libs.config.load import ConfigError, load, section
from libs.config.toml import read_toml

__all__ = ["ConfigError", "Environment", "Override", "load", "overlay", "read_toml", "section"]
