"""Authorizes the payment for an order, then captures or releases it."""
