"""
All of callgate in one thread, under a virtual clock and faults drawn from a seed.

    scheduler   virtual time; each actor is a greenlet that stops at every step
    faults      what may go wrong, and how often, in one seed
    broker      a model of our transport over Redis: messages get lost, repeated, late, flushed
    provider    a model of a provider that counts its own bills
    process     a worker process: the real services over faulty ports, with a clock and a memory of its own
    actors      pipelines that submit, operators that interfere
    conversations   pipelines that talk with tools, turn by turn
    world       one seed: builds all of the above, runs it, lets it come to rest
    submission_options, pause_plan   classes, deadlines and pauses of one life
    invariants  what must be true after every statement and at the end; row_rules, periods, limits, breakers,
                slots, pauses, wishes (classes and deadlines), open_calls, by_hand, ends and release_rule have
                those of one theme
    mutations   planted defects, each of which an invariant must catch
    hostile     a life beside a hostile tenant; attacks has what it does, row_locks the rows it holds,
                hostile_invariants what is promised to the others
    measure     ten minutes without a provider, with 500 calls queued
    run         the command line: `make simulate`

The domain, the services and the memory ledger are the real ones. Everything else is a model. Every call of a port is a
step, at which the seed decides who goes on, what is lost and who dies.
"""
