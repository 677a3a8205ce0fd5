"""A descriptor-driven HTTP/JSON to gRPC engine. It knows protos and our options, no business."""
