"""OpenAPI 3.1 from the same descriptors that serve the routes, so that it cannot say otherwise."""

from gateway.transcoder.openapi.comments import Comments
from gateway.transcoder.openapi.document import Info, document

__all__ = ["Comments", "Info", "document"]
