"""What was executed, as energies and as others would have counted it: from facts and the ledger, no layer class."""
