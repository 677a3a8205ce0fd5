"""Facts, told and heard. The README argues the design."""

from libs.bus.connect import connect
from libs.bus.consumer import Consumer, Handler
from libs.bus.dispatch import lazily, only
from libs.bus.events import event, outbox_event
from libs.bus.port import Bus, PartialPublish, Record, Subscription, SubscriptionClosed
from libs.bus.relay import Relay

__all__ = [
    "Bus",
    "Consumer",
    "Handler",
    "PartialPublish",
    "Record",
    "Relay",
    "Subscription",
    "SubscriptionClosed",
    "connect",
    "event",
    "lazily",
    "only",
    "outbox_event",
]
