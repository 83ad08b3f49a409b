"""Handle: the user's own Python steps, per record or per batch; outages are retried, faults are dead-lettered."""

from tidegate.stages.handle.ask import ask
from tidegate.stages.handle.chain import HandlerChain
from tidegate.stages.handle.context import BatchContext, RecordContext
from tidegate.stages.handle.step import Handled

__all__ = ["BatchContext", "Handled", "HandlerChain", "RecordContext", "ask"]
