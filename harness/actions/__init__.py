"""What a person can have done, a file each: functions with the flags' names as keywords, which give objects.

``harness`` offers some of them to Python; ``harness.commands`` calls them and prints what they give. What they tell
meanwhile goes to standard error, or to a notebook's output.
"""
