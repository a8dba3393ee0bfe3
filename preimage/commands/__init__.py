"""The commands that are not LightningCLI's; each is light until its arguments are read."""
