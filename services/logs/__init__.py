"""Logs of jobs: ordered ingest, cursor reads, tails and the live stream."""
