from dataclasses import dataclass
@dataclass(frozen=True)
class Client:
    name: str
    key: str
    concurrent: int | None = None
