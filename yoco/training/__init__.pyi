from .network import Protocol as Protocol
