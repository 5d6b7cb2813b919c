"""Part of a stand-in of FATE 1.x: the logger."""

import logging

LOGGER = logging.getLogger("federatedml")
