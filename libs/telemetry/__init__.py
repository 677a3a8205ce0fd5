"""What a running part says about itself: logs, metrics and traces."""

from libs.telemetry import metrics, trace
from libs.telemetry.logs import logger, setup

__all__ = ["logger", "metrics", "setup", "trace"]
