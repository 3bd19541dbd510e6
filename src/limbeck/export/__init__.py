"""export: a finished checkpoint as a folder that anyone can load, with a card that says what it is.

A model without its numbers, limits and licences is no release; so the card is made from the run's own report,
and a student that the report did not promote goes out only when somebody asks for just that.
"""

from limbeck.export.chosen import Chosen, choose
from limbeck.export.origins import Asked
from limbeck.export.places import export_to_folder, export_to_store
from limbeck.export.registry import Registry, register

__all__ = ["Asked", "Chosen", "Registry", "choose", "export_to_folder", "export_to_store", "register"]
