"""Jobs as values: states and moves, drafts and their checks, money. Pure and synchronous.

states      words of the state machine and which move is legal
spec        what a job is, fixed at submit
draft       a request as it came; checks.py finds what is wrong, normalise.py makes a spec of it
job         the aggregates Job and Attempt, facts, activities
moves       transitions: (job, what happened) -> (job, activities, facts)
"""
