"""Mutation testing of the modules that contacts, the lock, the brakes and secrets hang on."""
