"""The transfers of an org, as its users see them."""

from tollgate.credits.schemas import TransferFields, TransferQuery


class TransactionFilters(TransferQuery):
    pass


class Transaction(TransferFields):
    pass
