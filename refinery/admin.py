"""The console's face for Django's autodiscovery: its classes live in `refinery.console.admin`."""

from refinery.console import admin as admin
