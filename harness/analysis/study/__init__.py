"""The study's claims, one after the other, of the systems that runs were made on: pure functions of their tables.

answers.py             what an answer is, and how it is decided
batch_and_time.py      1: a larger batch cuts training time; where that ends
devices.py             2: by how much the GPU beats the processor
batch_and_accuracy.py  3, 4: accuracy falls with the batch size at equal epochs; more epochs recover it
shared_systems.py      5: on a shared system the gain vanishes; whether other users' load is the reason
backward_pass.py       6: the backward pass bounds small batches; what of it is dispatch
ways_of_training.py    7: synchronous and asynchronous training; a batch that grows and a fixed one
best_settings.py       8: the best setting differs from system to system
all_claims.py          all of them
"""
