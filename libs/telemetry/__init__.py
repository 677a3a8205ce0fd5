"""What a running part says about itself: logs, metrics and traces."""

from libs.telemetry import metrics, trace
from libs.telemetry.logs import debugging, logger, setup

__all__ = ["debugging", "logger", "metrics", "setup", "trace"]
