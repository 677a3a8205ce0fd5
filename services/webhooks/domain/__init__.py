"""Deliveries as values. Pure and synchronous.

delivery    the aggregate, its moves, and when to try again
payload     the body and the headers
addresses   which addresses a callback may reach
"""
