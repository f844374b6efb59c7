"""The four lanes of recall, each asked the same question and each answering for itself."""
