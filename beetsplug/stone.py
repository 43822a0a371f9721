"""Where beets looks for the plugin ``stone``; the work is in ``stonecli.integrations.beets``.

beets takes only a class that is defined here, so this is one. There is no ``__init__.py``: beetsplug is a namespace
package, and beets' own modules are in it.
"""

from __future__ import annotations

from stonecli.integrations import beets


class StonePlugin(beets.StonePlugin):
    """The plugin, under the name that beets expects."""
