from pydantic import BaseModel


class Received(BaseModel):
    """The event is stored."""

    received: bool = True
