"""The proof that many processes on several servers keep every promise while each of them breaks."""
