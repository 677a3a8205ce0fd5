"""Wallets, holds and the ledger. See README.md."""
