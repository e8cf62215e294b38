"""Checks of what is shipped in `cron/` with the programs that will read it: `make deploy-check`."""
