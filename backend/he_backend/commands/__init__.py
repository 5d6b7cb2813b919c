"""The he-nn commands, one module each; they are imported when they are called, so that `he-nn --help` is quick."""
