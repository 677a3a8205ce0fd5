"""The public door: HTTP and JSON outside, gRPC and protobuf inside."""
