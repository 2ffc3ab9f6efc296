"""Ask Foretide for data ahead of a job: warm, wait, advise, announce."""

from foretide.client import Client, ForetideError
from foretide.values import Advice, Announced, Failures, SiteAdvice, Starts, State, Warmup

__all__ = ["Advice", "Announced", "Client", "Failures", "ForetideError", "SiteAdvice", "Starts", "State", "Warmup"]
