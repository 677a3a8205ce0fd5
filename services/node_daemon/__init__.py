"""The daemon on provider hardware. Imports nothing here: the zygote must stay small."""
