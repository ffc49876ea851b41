"""Runs on a Ray cluster: heats as tasks that the sweep's own process starts, follows and starts again.

    options  what is asked of Ray for each target, and which nodes have it
    tasks    Ray itself: connecting, starting a task, how it ended

Ray's own retries are not used: they do not tell a task which attempt it is, and one that begins again where its node
has died must first wait for that node's locks.
"""
