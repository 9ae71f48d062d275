"""
The whole of callgate in one thread, under a clock that only moves when told to and faults drawn from a seed.

    scheduler   virtual time; everybody who acts is a greenlet that stops at every step
    faults      what may go wrong, and how often, in one seed
    broker      a model of our transport over Redis: popped is forgotten, repeated, late, flushed
    provider    a model of a provider, with books of its own
    process     a worker process: the real services over the models, a clock of its own, a memory that dies with it
    actors      pipelines that submit, operators that interfere
    world       one seed: builds all of the above, plays it, lets it come to rest
    invariants  what must be true after every step, and at the end
    breakers    the same of providers that fail: who is tried, who waits
    limits      the same of how often a call is made
    mutations   planted defects, each of which an invariant must catch; breaker_mutations has those about providers
    hostile     a tenant that attacks the others, and what is promised to them; row_locks has what it holds,
                hostile_mutations the defects by which it could stop them
    measure     ten minutes without a provider, 500 calls in the queue
    run         the command line: `make simulate`

The domain, the services and the memory ledger are the real ones. Everything else is a model, and every call of a port
is a step: there the seed decides who goes on, what is lost, and who dies.
"""
