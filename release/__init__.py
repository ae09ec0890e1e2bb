"""What a release goes through before anybody installs it."""
